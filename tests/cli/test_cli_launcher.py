"""``hydra/launcher=NAME``: the jobs of a sweep as calls of an executor."""

import json

import pytest

NEAR = ("tracker=[]", "model=tiny", "output=out", "hydra/launcher=near")


@pytest.fixture
def sweep(cli, fake_core, near):
    return lambda *words: cli("train", "--multirun", "--plugin", fake_core, *NEAR, *words)


def ledger(folder):
    return [json.loads(line) for line in (folder / "jobs.jsonl").read_text().splitlines()]


def seen(folder, job):
    return json.loads((folder / str(job) / "seen.json").read_text())


def test_each_job_is_a_call_and_is_heard_of(sweep, near, fake_core, tmp_path):
    words = ("hydra.launcher.cpus=2", "hydra.launcher.place=there")
    status, out, err = sweep("seed=0,1", "model.width=4,5", *words)
    assert (status, err) == (0, "")
    [opened] = near.opened
    assert opened.options == near(cpus=2.0, place="there")
    assert (opened.calls, opened.threads, opened.keep) == (4, None, True)
    folder = tmp_path / "out"
    assert out.splitlines()[-1] == f"{folder}: 4 jobs, 4 of them finished"
    assert {f"{folder}/{n}: ok" for n in range(4)} <= {
        line.split(",")[0] for line in out.split("\n")
    }
    assert [seen(folder, job)["seed"] for job in range(4)] == [0, 0, 1, 1]
    assert all(list(seen(folder, job)["plugins"]) == [str(fake_core)] for job in range(4))
    assert opened.is_stopped


def test_a_sweep_ends_with_its_worst_jobs_status(sweep, tmp_path):
    status, _, err = sweep("seed=0,3,2")
    assert status == 3
    assert err == "metaloss: error: job 2: no such luck\n"
    assert sorted(line["status"] for line in ledger(tmp_path / "out")) == [0, 2, 3]


def test_a_lost_worker_is_told_after_the_others_have_ended(sweep, near, tmp_path):
    near.lost.add(0)
    status, _, err = sweep("seed=0,1")
    assert status == 2
    assert err.splitlines()[-1] == (
        "metaloss: error: job 0: its process ended by itself, with status 5"
    )
    assert [line["job"] for line in ledger(tmp_path / "out")] == [1]


def test_an_interrupted_job_stops_the_sweep(sweep, near):
    near.stopped.add(0)
    status, _, err = sweep("seed=0,1,4")
    assert (status, err) == (130, "metaloss: interrupted\n")
    assert near.opened[0].is_stopped


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("hydra.launcher.cpus=two", "hydra.launcher.cpus=two: expected a number"),
        ("hydra.launcher.cpus=-1", "hydra.launcher.cpus=-1.0: expected a positive number"),
        ("hydra/launcher=ray", "hydra/launcher=ray needs the plugin metaloss-ray: pip install "),
        ("hydra/launcher=neer", "unknown hydra/launcher 'neer': did you mean 'near'? (allowed: b"),
    ],
)
def test_what_cannot_be_met_is_one_line_and_leaves_nothing(sweep, word, message, tmp_path):
    status, out, err = sweep("seed=0,1", word)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"metaloss: error: {message}")
    assert not (tmp_path / "out").exists()
