"""A Ray of this machine: calls, comparisons, sweeps and searches, and workers that are killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("ray")

from metaloss_ray import Ray

import metaloss
from metaloss.core.execution.executor import LostError, StoppedError

# Ray interrupts Python alone, not what waits within the system.
BUSY = "import pathlib, time\npathlib.Path({!r}).touch()\nwhile True: time.sleep(0.1)"
RUN = ("tracker=[]", "device=cpu", "schedule=static", "loss=cross_entropy", "steps=5")


@pytest.fixture(autouse=True)
def _private(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def busy(executor, path):
    """Submit a call that never ends; return its future once the call has begun."""
    held = executor.submit(exec, BUSY.format(str(path)))
    while not path.exists():
        time.sleep(0.02)
    return held


@pytest.mark.slow
def test_calls_return_fail_get_lost_and_are_interrupted(tmp_path):
    with Ray(address="local").open() as executor:
        assert executor.submit(max, 3, 7).result(300) == 7
        with pytest.raises(ValueError, match=r"^invalid literal"):
            executor.submit(int, "x").result(300)
        number = executor.submit(os.getpid).result(300)
        held = busy(executor, tmp_path / "first")
        os.kill(number, signal.SIGKILL)
        with pytest.raises(LostError, match="its worker was lost"):
            held.result(300)
        assert executor.submit(max, 3, 7).result(300) == 7
        held = busy(executor, tmp_path / "second")
        executor.stop()
        with pytest.raises(StoppedError):
            held.result(0)


def metaloss_command(folder, *words):
    done = subprocess.run(
        [sys.executable, "-m", "metaloss", *words], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.faults
def test_a_comparison_and_a_sweep_are_finished(tmp_path):
    words = ("compare", "out", "--seeds", "0-1", "--row", "a: steps=4", *RUN)
    metaloss_command(tmp_path, *words, "hydra/launcher=ray", "hydra.launcher.address=local")
    assert (tmp_path / "out/table.md").is_file()
    words = ("train", "--multirun", *RUN, "seed=0,1", "output=sweep", "hydra/launcher=ray")
    out = metaloss_command(tmp_path, *words)
    assert out.splitlines()[-1] == f"{tmp_path / 'sweep'}: 2 jobs, 2 of them finished"
    for place in ("out/a/seed0", "out/a/seed1", "sweep/0", "sweep/1"):
        assert (tmp_path / place / "summary.json").is_file()


SEARCH = (
    *("loss=taylor", "schedule=offline", "meta_optimizer=cmaes", "meta_optimizer.population=6"),
    *("meta_optimizer.generations=2", "meta_optimizer.fitness_steps=20", "steps=5", "tracker=[]"),
    *("meta_optimizer.early_end=0", "meta_optimizer.group=2", "device=cpu"),
)


@pytest.mark.faults
def test_a_search_finds_what_one_worker_finds_also_on_a_cluster_by_its_address(tmp_path):
    pytest.importorskip("metaloss_evolution")
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    port = "6399"
    begin = ["start", "--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2"]
    metaloss.train([*SEARCH, f"output={tmp_path / 'one'}"])
    metaloss.train([*SEARCH, "meta_optimizer.workers=ray", f"output={tmp_path / 'ray'}"])
    subprocess.run([*ray, *begin, "--include-dashboard=false"], check=True, capture_output=True)
    try:
        words = ["meta_optimizer.workers=ray", f"meta_optimizer.address=127.0.0.1:{port}"]
        metaloss.train([*SEARCH, *words, f"output={tmp_path / 'cluster'}"])
    finally:
        subprocess.run([*ray, "stop", "--force"], check=True, capture_output=True)
    tables = [(tmp_path / name / "search.csv").read_text() for name in ("one", "ray", "cluster")]
    assert tables[0].count("\n") == 13
    assert tables[0] == tables[1] == tables[2]
