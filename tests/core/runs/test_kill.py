"""Runs that are killed with SIGKILL and resumed end like those that were not."""

import os
import signal
import time

import pytest

from metaloss.core.execution import preload
from metaloss.core.execution.processes import CONTEXT
from metaloss.core.runs.run import resume_run, train
from metaloss.core.storage.run_folder import read_rows

from ..same_ending import assert_same_ending
from ..small_setups import fast

LEARNED = (
    "schedule=online",
    "schedule.offline_steps=30",
    "schedule.unroll=2",
    "model.dropout=0.2",
    "model.batch_norm=true",
    "start.steps=500",
)
NEXT = ("schedule=online", "schedule.meta_batch=next", "inner=adam", "start.steps=250")
STATIC = (
    "schedule=static",
    "loss=label_smoothing",
    "inner.momentum=0.9",
    "model.dropout=0.5",
    "steps=400",
)


def words(*more):
    return fast(
        "task=digits",
        "task.subset=200",
        "model=mlp",
        "model.hidden=[16]",
        "steps=100",
        "log_every=5",
        "eval_every=20",
        "checkpoint_every=9",
        *more,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a function that gives the folder of a run that nothing stopped."""
    done = {}

    def get(choice):
        if choice not in done:
            folder = tmp_path_factory.mktemp("whole") / "run"
            train([*words(*choice), f"output={folder}"])
            done[choice] = folder
        return done[choice]

    return get


def rows_of(folder, phase):
    path = folder / "journal.jsonl"
    return [row for row in read_rows(path) if row["phase"] == phase] if path.exists() else []


MOMENTS = {
    "start": lambda folder: rows_of(folder, "start"),
    "offline": lambda folder: len(rows_of(folder, "offline")) >= 3,
    "early in training": lambda folder: len(rows_of(folder, "train")) >= 2,
    "late in training": lambda folder: len(rows_of(folder, "train")) >= 12,
    "while a checkpoint is written": lambda folder: (
        (folder / "checkpoints").exists()
        and any(name.endswith(".tmp") for name in os.listdir(folder / "checkpoints"))
    ),
}


def kill(process, folder, moment):
    """Start a run and kill it when its folder shows the moment."""
    process.start()
    deadline = time.monotonic() + 120
    while not MOMENTS[moment](folder):
        assert process.is_alive(), f"the run ended before the moment: {moment}"
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (folder / "summary.json").exists(), "the run was finished already"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choice", "moments"),
    [
        (LEARNED, ["start", "offline", "early in training"]),
        (LEARNED, ["while a checkpoint is written", "late in training"]),
        (NEXT, ["late in training"]),
        (STATIC, ["while a checkpoint is written", "late in training"]),
    ],
)
def test_a_killed_run_ends_like_one_that_was_not(choice, moments, whole, tmp_path):
    folder = tmp_path / "run"
    first, *others = moments
    CONTEXT.set_forkserver_preload([preload.__name__])
    arguments = ([*words(*choice), f"output={folder}"],)
    kill(CONTEXT.Process(target=train, args=arguments), folder, first)
    for moment in others:
        kill(CONTEXT.Process(target=resume_run, args=(folder,)), folder, moment)
    resume_run(folder)
    assert_same_ending(folder, whole(choice))
    assert not [path for path in folder.rglob("*.tmp") if path.name.startswith(".summary")]
