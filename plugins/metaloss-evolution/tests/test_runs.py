"""Whole runs: by name, on several processes, killed and gone on with."""

import csv
import json
import os
import signal
import time

import pytest

import metaloss
from metaloss.core.execution.processes import Processes
from metaloss.errors import MetalossError
from tests import forked

GP = (
    "loss=symbolic",
    "schedule=offline",
    "meta_optimizer=gp",
    "meta_optimizer.population=8",
    "meta_optimizer.generations=3",
    "meta_optimizer.fitness_steps=30",
    "meta_optimizer.early_end=0",
    "meta_optimizer.fitness=task_loss",
    "meta_optimizer.local_steps=2",
    "meta_optimizer.group=3",
    "meta_optimizer.lowest=1",
    "model.hidden=[8]",
    "steps=20",
    "seed=3",
    "tracker=[]",
)
CMAES = (
    "loss=taylor",
    "schedule=offline",
    "meta_optimizer=cmaes",
    "meta_optimizer.population=4",
    "meta_optimizer.generations=2",
    "meta_optimizer.fitness_steps=20",
    "meta_optimizer.early_end=0",
    "meta_optimizer.fitness=task_loss",
    "meta_optimizer.group=2",
    "steps=10",
    "tracker=[]",
)


def table(folder):
    return (folder / "search.csv").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the run on one worker that the others must equal."""
    return metaloss.train([*GP, f"output={tmp_path_factory.mktemp('runs') / 'whole'}"])


def same(folder, whole):
    assert table(folder) == table(whole.folder)
    for name in ("loss.safetensors", "model.safetensors"):
        assert (folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_loss_is_found_and_stored(whole):
    description = json.loads((whole.folder / "loss.json").read_text())
    assert description["options"]["expression"] == whole.summary.search["loss"]
    rows = list(csv.DictReader(table(whole.folder).splitlines()))
    assert len(rows) == 24
    trained = [float(row["fitness"]) for row in rows if row["status"] == "trained"]
    found = whole.summary.search
    assert min(*trained, found["began_with"]) == pytest.approx(found["fitness"])
    assert metaloss.load_loss(whole.folder).formula()


def test_two_workers_find_what_one_finds(whole, tmp_path):
    metaloss.train([*GP, "meta_optimizer.workers=2", f"output={tmp_path}"])
    same(tmp_path, whole)


def test_a_search_that_is_killed_ends_as_the_uninterrupted_one(whole, tmp_path):
    folder = tmp_path / "run"
    words = ["train", *GP, f"output={folder}"]
    process = forked.begin(words, folder=tmp_path, out=tmp_path / "log")
    saved = folder / "search" / f"{1:012d}.checkpoint"
    for _ in range(600):
        if saved.exists() or not process.is_alive():
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (folder / "summary.json").exists()
    metaloss.resume_run(folder)
    same(folder, whole)


def losing(monkeypatch, is_lost):
    """Let calls die instead, of those that processes are asked for."""
    opened = Processes.open

    def losing_executor(self, **given):
        executor = opened(self, **given)
        real, asked = executor.submit, []

        def submit(function, *arguments):
            asked.append(function)
            return real(os._exit, 1) if is_lost(len(asked)) else real(function, *arguments)

        executor.submit = submit
        return executor

    monkeypatch.setattr(Processes, "open", losing_executor)


def test_a_lost_worker_is_replaced_and_counted(whole, tmp_path, monkeypatch):
    losing(monkeypatch, lambda number: number == 2)
    run = metaloss.train([*GP, "meta_optimizer.workers=2", f"output={tmp_path}"])
    assert run.summary.search["lost_workers"] == 1
    same(tmp_path, whole)


def test_workers_that_are_always_lost_end_the_run_with_a_reason(tmp_path, monkeypatch):
    losing(monkeypatch, lambda number: True)
    with pytest.raises(MetalossError, match=r"workers=2: a group of candidates was lost 3 times"):
        metaloss.train([*CMAES, "meta_optimizer.workers=2", f"output={tmp_path}"])


def test_cmaes_searches_a_taylor_loss(tmp_path):
    run = metaloss.train([*CMAES, f"output={tmp_path}"])
    assert run.summary.search["candidates"] == 8
    assert run.loss.formula().count("p") == 6


@pytest.mark.parametrize("seed", [0, 1])
def test_a_tiny_search_trains_at_least_with_the_loss_that_it_began_with(seed, tmp_path):
    words = ["meta_optimizer.population=4", "meta_optimizer.generations=1", "steps=20"]
    words += ["meta_optimizer.fitness_steps=20", f"seed={seed}", "tracker=[]"]
    words += ["loss=symbolic", "schedule=offline", "meta_optimizer=gp", f"output={tmp_path}"]
    run = metaloss.train(words)
    assert (run.summary.status, run.summary.guard_events) == ("ok", [])
    found = run.summary.search
    assert found["fitness"] <= found["began_with"]
    assert (found["generation"], found["loss"]) == (-1, "square(sub(t, p))")


def test_a_family_that_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(MetalossError, match="gp with loss=taylor: expected loss=symbolic"):
        metaloss.train([*GP[1:], "loss=taylor", f"output={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()
