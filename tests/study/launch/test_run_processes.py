"""Runs in processes of their own, against the same by the command line."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import forkserver

import pytest

from metaloss.cli.main import main
from metaloss.core.execution import preload, processes
from metaloss.core.execution.processes import CONTEXT, Processes
from metaloss.errors import MetalossError
from metaloss.study.launch.launch import ProcessTrainer, RefusedError

from .asking import ask

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs a fork server")

WORDS = ["schedule=static", "loss=cross_entropy", "steps=20", "tracker=[]", "device=cpu"]
LONG = [*WORDS, "steps=200", "log_every=10"]

# Its product is large enough for a team of threads.
PLUGIN = """
import os, torch
from metaloss.models.linear import Linear
from metaloss.registry import register

@register("model", "mine")
class Mine(Linear):
    pass

(torch.ones(700, 700) @ torch.ones(700, 700)).sum().item()
tasks = len(os.listdir(f"/proc/{os.getppid()}/task"))
print("found", torch.get_num_threads(), torch.cuda._is_in_bad_fork(), tasks, os.read(0, 1), end=" ")
# Before what the run says itself.
print(os.getpgid(0) == os.getpid(), flush=True)
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "mine.py"
    path.write_text(PLUGIN)
    return ["--plugin", str(path)]


def opened(*arguments, threads=1):
    executor = Processes(count=2).open(threads=threads, keep=False)
    return ProcessTrainer(executor=executor, arguments=arguments)


@pytest.fixture(scope="module")
def train(plugin):
    with opened(*plugin, threads=2) as trainer:
        yield trainer


class Calling(threading.Thread):
    """Trains beside the test; remembers the error."""

    def __init__(self, train, words, folder):
        super().__init__(daemon=True)
        self.error = None
        self._call = (train, words, folder)
        self.start()

    def run(self):
        train, words, folder = self._call
        try:
            train(words, folder, resume=False)
        except MetalossError as error:
            self.error = error


def wait_for(condition, *, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_training(folder):
    journal = folder / "journal.jsonl"
    return journal.exists() and len(journal.read_text().splitlines()) > 1


def has_ended(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def test_a_run_is_the_run_of_the_command_line(tmp_path, train, plugin):
    words = [*WORDS, "model=mine"]
    with (tmp_path / "cold.log").open("wb") as log:
        subprocess.run(
            [
                *(sys.executable, "-m", "metaloss", "train", *words, *plugin),
                f"output={tmp_path / 'cold'}",
            ],
            check=True,
            stdout=log,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "2",
                "MKL_NUM_THREADS": "2",
                "OMP_WAIT_POLICY": "PASSIVE",
            },
        )
    assert train(words, tmp_path / "warm", resume=False) == "ok"
    found = {}
    for name in ("cold", "warm"):
        found[name] = json.loads((tmp_path / name / "summary.json").read_text())
        assert found[name].pop("seconds") > 0
        assert found[name].pop("train_seconds") > 0
    assert found["warm"] == found["cold"]
    assert found["warm"]["metrics"]["test/error"] < 1
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in found]
    assert files[0] == files[1]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in found]
    assert weights[0] == weights[1]
    logs = [(tmp_path / f"{name}.log").read_text().replace(name, "") for name in found]
    last = [log.splitlines()[-1] for log in logs]
    assert last[0] == last[1] != ""


def test_a_run_has_threads_a_group_and_no_input(tmp_path, train):
    with pytest.raises(RefusedError):
        train(["loss=nosuch"], tmp_path / "run", resume=False)
    found = (tmp_path / "run.log").read_text().splitlines()[0]
    assert found == "found 2 False 1 b'' True"


def test_a_bad_request_is_refused_in_the_same_words(tmp_path, train, capsys):
    words = ["loss=nosuch", f"output={tmp_path / 'run'}"]
    assert main(["train", *words]) == 2
    line = capsys.readouterr().err.strip()
    with pytest.raises(RefusedError) as caught:
        train(words[:1], tmp_path / "run", resume=False)
    assert f": exit status 2: {line} (see " in str(caught.value)


def test_a_run_that_diverges_says_so(tmp_path, train):
    words = [*WORDS, "model=mlp", "inner.lr=1e30", "schedule=static"]
    assert train(words, tmp_path / "run", resume=False) == "diverged"


def test_a_process_that_a_signal_ends_is_told_with_its_last_line(tmp_path, train):
    kill = tmp_path / "kill.py"
    kill.write_text("import os\nprint('so far', flush=True)\nos.kill(os.getpid(), 9)\n")
    with pytest.raises(MetalossError, match=r"run: its process was ended by SIGKILL: .*so far"):
        train([*WORDS, "--plugin", str(kill)], tmp_path / "run", resume=False)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_from_its_checkpoint(tmp_path, train):
    folder = tmp_path / "run"
    with opened() as stopped:
        calling = Calling(stopped, LONG, folder)
        wait_for(lambda: is_training(folder))
        stopped.stop()
        calling.join(60)
    assert "exit status 130: metaloss: interrupted: " in str(calling.error)
    assert list((folder / "checkpoints").glob("*.checkpoint"))
    assert not (folder / "summary.json").exists()
    assert train(LONG, folder, resume=True) == "ok"
    assert json.loads((folder / "summary.json").read_text())["steps"] == 200


@pytest.mark.slow
def test_a_run_that_does_not_hear_is_killed(tmp_path, monkeypatch):
    deaf = tmp_path / "deaf.py"
    deaf.write_text(
        "import pathlib, signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\ntime.sleep(600)\n"
    )
    monkeypatch.setattr(processes, "PATIENCE_SECONDS", 0.5)
    with opened("--plugin", str(deaf)) as train:
        calling = Calling(train, WORDS, tmp_path / "run")
        wait_for((tmp_path / "ready").exists)
    calling.join(60)
    assert "run: stopped" in str(calling.error)


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["the caller", "both", "all, by SIGTERM"])
def test_the_server_and_its_runs_end_with_whoever_asked_for_them(tmp_path, killed):
    folder = tmp_path / "run"
    pipe, theirs = CONTEXT.Pipe()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    CONTEXT.set_forkserver_preload([preload.__name__])
    parent = CONTEXT.Process(target=ask, args=(theirs, environment, LONG, folder))
    parent.start()
    try:
        server = pipe.recv()
        wait_for(lambda: is_training(folder))
        (pid,) = children_of(server)
        if killed == "both":
            os.kill(parent.pid, signal.SIGSTOP)  # it would kill the run when the server is gone
            os.kill(server, signal.SIGKILL)
        if killed == "all, by SIGTERM":
            for one in (server, pid, parent.pid):
                os.kill(one, signal.SIGTERM)
            parent.join()
    finally:
        parent.kill()
        parent.join()
    wait_for(lambda: has_ended(server) and has_ended(pid))
    assert list((folder / "checkpoints").glob("*.checkpoint"))
    assert not (folder / "summary.json").exists()
    assert "metaloss: interrupted: " in (tmp_path / "run.log").read_text()


@pytest.mark.slow
def test_a_run_does_not_outlive_its_server_and_others_begin_from_a_new_one(tmp_path):
    tell = tmp_path / "tell.py"
    tell.write_text(
        "import os, pathlib, signal, time\n"
        f"path = pathlib.Path({str(tmp_path / 'pid')!r})\n"
        "if not path.exists():\n"
        "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "    path.with_suffix('.new').write_text(str(os.getpid()))\n"
        "    path.with_suffix('.new').rename(path)\n"
        "    time.sleep(600)\n"
    )
    with opened("--plugin", str(tell)) as train:
        calling = Calling(train, WORDS, tmp_path / "run")
        wait_for((tmp_path / "pid").exists)
        os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
        calling.join(60)
        assert "is gone" in str(calling.error)
        wait_for(lambda: has_ended(int((tmp_path / "pid").read_text())))
        assert train(WORDS, tmp_path / "other", resume=False) == "ok"


def test_preloading_starts_no_thread_and_leaves_cuda_alone():
    script = (
        "import os, torch\n"
        "def touched(*_): os._exit(9)\n"
        "torch._C._cuda_getDeviceCount = torch._C._cuda_init = touched\n"
        "from metaloss.core.execution.preload import preload\n"
        "preload()\n"
        "print(len(os.listdir('/proc/self/task')), torch.cuda.is_initialized())\n"
    )
    # With more, NumPy's own team of threads, which minds forks, is there from its import on.
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 False\n", "")
