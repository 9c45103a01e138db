"""Runs on Ray: with a Ray that is none, and with a true one where it is installed."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from metaloss.core.search.ray_tasks import Asked
from metaloss.errors import MetalossError
from metaloss.study.launch.launch import RefusedError
from metaloss.study.launch.ray_trainer import RayTrainer, refuse_searches

ASKED = Asked(num_cpus=3)


@pytest.mark.parametrize(("status", "word"), [(0, "ok"), (3, "diverged")])
def test_a_node_gets_the_words_and_tells_how_it_ended(
    tmp_path, fake_ray, fake_python, status, word
):
    words = fake_python(f"exit {status}")
    folder = tmp_path / "a run" / "seed0"
    with RayTrainer(ASKED, arguments=["--plugin", "mine.py"]) as train:
        assert train(["loss=mlp", "seed=0"], folder, resume=False) == word
    assert words() == [
        "-m", "metaloss", "train", "loss=mlp", "seed=0", f"output='{folder}'",
        "--plugin", "mine.py", "threads 3",
    ]  # fmt: skip
    assert folder.with_name("seed0.log").exists()


def test_a_folder_is_the_same_from_everywhere(tmp_path, fake_ray, fake_python, monkeypatch):
    words = fake_python("exit 0")
    monkeypatch.chdir(tmp_path)
    with RayTrainer(ASKED) as train:
        train([], tmp_path.joinpath("run").relative_to(tmp_path), resume=True)
    assert words()[3:5] == ["--resume", str(tmp_path / "run")]


@pytest.mark.parametrize(("status", "kind"), [(2, RefusedError), (1, MetalossError)])
def test_a_run_that_fails_says_why(tmp_path, fake_ray, fake_python, status, kind):
    fake_python(f"echo working; echo 'metaloss: error: steps=0' >&2; exit {status}")
    with RayTrainer(ASKED) as train, pytest.raises(MetalossError, match="steps=0 ") as caught:
        train([], tmp_path / "run", resume=False)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"{tmp_path / 'run'}: exit status {status}: ")


def test_a_lost_worker_is_one_failed_run(tmp_path, fake_ray):
    fake_ray.lost = {0}
    with RayTrainer(ASKED) as train, pytest.raises(MetalossError, match="run: its worker was lost"):
        train([], tmp_path / "run", resume=False)


def test_stop_interrupts_runs_and_starts_nothing_more(tmp_path, fake_ray):
    fake_ray.held = True
    with RayTrainer(ASKED) as train:
        calling = Calling(train, [], tmp_path / "run")
        wait_for(lambda: fake_ray.begun)
        train.stop()
        calling.join(20)
        assert "run: stopped" in str(calling.error)
        with pytest.raises(MetalossError, match="stopped"):
            train([], tmp_path / "other", resume=False)


def test_as_many_runs_as_fit_are_begun_unless_it_is_said(fake_ray):
    fake_ray.resources = {"CPU": 7.0}
    with RayTrainer(replace(ASKED, address="auto")) as train:
        assert train.slots == 2


@pytest.mark.usefixtures("no_ray")
def test_without_ray_it_is_said_how_to_install_it():
    with pytest.raises(MetalossError, match=r"hydra/launcher=ray needs Ray: pip install 'metal"):
        RayTrainer(ASKED)


def test_runs_that_wait_for_tasks_of_their_own_are_refused():
    job = SimpleNamespace(row="gp", config={"meta_optimizer": {"name": "gp", "workers": "ray"}})
    with pytest.raises(MetalossError, match=r"row 'gp': .*workers=ray beside hydra/la"):
        refuse_searches([job])
    refuse_searches([SimpleNamespace(row="ce", config={"meta_optimizer": {"name": "mixed"}})])


class Calling(threading.Thread):
    """Trains beside the test; remembers the error."""

    def __init__(self, train, words, folder):
        super().__init__(daemon=True)
        self.train, self.words, self.folder, self.error = train, words, folder, None
        self.start()

    def run(self):
        try:
            self.train(self.words, self.folder, resume=False)
        except MetalossError as error:
            self.error = error


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_true_ray_runs_the_command_and_interrupts_it(tmp_path):
    pytest.importorskip("ray")
    plugin = tmp_path / "waits.py"
    plugin.write_text(
        "import pathlib, time\n"
        f"here = pathlib.Path({str(tmp_path)!r})\n"
        "(here / 'ready').touch()\n"
        "try:\n    time.sleep(600)\n"
        "except KeyboardInterrupt:\n    (here / 'saved').touch()\n    raise\n"
    )
    words = ["schedule=static", "loss=cross_entropy", "steps=5", "tracker=[]", "device=cpu"]
    with RayTrainer(Asked(address="local"), arguments=[]) as train:
        with pytest.raises(RefusedError, match="exit status 2: metaloss: error: steps=-1"):
            train(["steps=-1"], tmp_path / "wrong", resume=False)
        assert train(words, tmp_path / "run", resume=False) == "ok"
        assert (tmp_path / "run" / "summary.json").exists()
        calling = Calling(train, [*words, "--plugin", str(plugin)], tmp_path / "long")
        wait_for((tmp_path / "ready").exists)
        train.stop()
        assert (tmp_path / "saved").exists(), "it waits for what it interrupts"
        calling.join(60)
        assert "long: stopped" in str(calling.error)
