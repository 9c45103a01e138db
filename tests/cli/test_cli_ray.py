"""``hydra/launcher=ray``: with a Ray that is none, and with a true one where it is installed."""

import json
import os
import subprocess
import sys

import pytest
from hydra.core.singleton import Singleton

RAY = ("tracker=[]", "model=tiny", "output=out", "hydra/launcher=ray")


@pytest.fixture
def sweep(cli, fake_core, monkeypatch):
    # Jobs of the Ray that is none leave in this process what they bring to a worker.
    monkeypatch.setattr(Singleton, "_instances", Singleton._instances)
    return lambda *words: cli("train", "--multirun", "--plugin", fake_core, *RAY, *words)


def ledger(folder):
    return [json.loads(line) for line in (folder / "jobs.jsonl").read_text().splitlines()]


def seen(folder, job):
    return json.loads((folder / str(job) / "seen.json").read_text())


@pytest.mark.usefixtures("no_ray")
def test_without_ray_one_line_says_how_to_install_it(sweep, tmp_path):
    status, out, err = sweep("seed=0,1")
    assert (status, out) == (2, "")
    assert err == ("metaloss: error: hydra/launcher=ray needs Ray: pip install 'metaloss[ray]'\n")
    assert not (tmp_path / "out").exists()


def test_each_job_is_a_task_and_is_heard_of(sweep, fake_ray, fake_core, tmp_path):
    status, out, err = sweep("seed=0,1", "model.width=4,5", "hydra.launcher.num_cpus=2")
    assert (status, err) == (0, "")
    assert [options["num_cpus"] for options in fake_ray.options] == [2]
    folder = tmp_path / "out"
    assert out.splitlines()[-1] == f"{folder}: 4 jobs, 4 of them finished"
    assert {f"{folder}/{n}: ok" for n in range(4)} <= {
        line.split(",")[0] for line in out.split("\n")
    }
    assert [seen(folder, job)["seed"] for job in range(4)] == [0, 0, 1, 1]
    assert all(list(seen(folder, job)["plugins"]) == [str(fake_core)] for job in range(4))
    assert not fake_ray.connected


def test_a_sweep_ends_with_its_worst_jobs_status(sweep, fake_ray, tmp_path):
    status, _, err = sweep("seed=0,3,2")
    assert status == 3
    # Twice here, where the worker's log is this process's.
    assert set(err.splitlines()) == {"metaloss: error: job 2: no such luck"}
    assert [line["status"] for line in ledger(tmp_path / "out")] == [0, 3, 2]


def test_a_lost_worker_is_told_after_the_others_have_ended(sweep, fake_ray, tmp_path):
    fake_ray.lost = {0}
    status, _, err = sweep("seed=0,1")
    assert status == 2
    assert err.splitlines()[-1] == (
        "metaloss: error: job 0: its worker was lost (WorkerCrashedError)"
    )
    assert [line["job"] for line in ledger(tmp_path / "out")] == [1]


def test_an_interrupted_job_stops_the_sweep(sweep, fake_ray):
    fake_ray.held = True
    begin = fake_ray._begin

    def interrupted(*given):
        reference = begin(*given)
        if len(fake_ray.begun) == 1:
            fake_ray.cancel(reference)
        return reference

    fake_ray._begin = interrupted
    status, _, err = sweep("seed=0,1,4")
    assert (status, err) == (130, "metaloss: interrupted\n")
    assert sorted({number for number, _ in fake_ray.cancelled}) == [0, 1, 2]


def test_a_machine_that_is_too_small_is_one_line(sweep, fake_ray):
    status, _, err = sweep("seed=0,1", "hydra.launcher.num_gpus=1")
    assert status == 2
    assert err == "metaloss: error: each task asks for 1 GPUs, and Ray has 0 on this machine\n"


@pytest.mark.slow
def test_workers_of_true_ray_know_the_plugin_and_report(fake_core, tmp_path):
    pytest.importorskip("ray")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "metaloss", "train", "--multirun", "--plugin", str(fake_core)),
            *(*RAY, "model.width=4", "seed=0,3,2", "hydra.launcher.address=local"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.splitlines()[-1] == "metaloss: error: job 2: no such luck"
    folder = tmp_path / "out"
    assert sorted(line["status"] for line in ledger(folder)) == [0, 2, 3]
    assert {seen(folder, job)["model"] for job in (0, 1)} == {"tiny"}
    assert f"{folder}/1: diverged, " in done.stdout
