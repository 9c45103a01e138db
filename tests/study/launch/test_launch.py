import os
import signal
import threading
import time
from dataclasses import replace

import pytest

from metaloss.compose import compose, to_yaml
from metaloss.errors import MetalossError
from metaloss.study.launch.jobs import State, plan_jobs
from metaloss.study.launch.launch import RefusedError, train_missing
from metaloss.study.spec.spec import Row, Study

STUDY = Study(
    rows=(
        Row(name="ce", overrides=("schedule=static", "loss=cross_entropy")),
        Row(name="online", overrides=("schedule=online", "loss=mlp")),
    ),
    seeds=(0, 1),
    common=("task=digits", "steps=200"),
)


class Watch:
    """Remembers what it was told."""

    def __init__(self):
        self.ended_with, self.looks, self.begun = {}, 0, []

    def started(self, job):
        self.begun.append((job.row, job.seed))

    def ended(self, job, message):
        self.ended_with[job.row, job.seed] = message

    def look(self):
        self.looks += 1


class FakeTrainer:
    """Writes the folder of a run in place of training it."""

    def __init__(self, runs, *, fails=()):
        self.runs, self.fails, self.calls = runs, fails, []
        self.running = self.most = 0
        self.lock = threading.Lock()

    def __call__(self, overrides, folder, *, resume):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.calls.append((folder.parent.name, folder.name, resume))
            self.overrides = overrides
        try:
            time.sleep(0.05)
            if folder.parent.name in self.fails:
                raise MetalossError(f"{folder}: no luck")
            if resume:
                (folder / "summary.json").write_text('{"metrics": {"test/error": 0.1}}')
            else:
                self.runs.write_run(folder, overrides)
        finally:
            with self.lock:
                self.running -= 1
        return "ok"


def test_missing_runs_are_trained_costly_ones_first(tmp_path, runs):
    train, watch = FakeTrainer(runs), Watch()
    train_missing(plan_jobs(STUDY, tmp_path), train, workers=1, watch=watch)
    assert train.calls == [
        ("online", "seed0", False),
        ("online", "seed1", False),
        ("ce", "seed0", False),
        ("ce", "seed1", False),
    ]
    assert set(watch.ended_with.values()) == {""}
    assert watch.looks > 0


def test_at_the_same_cost_runs_come_in_the_given_order(tmp_path, runs):
    blocks = ["zebra", "ant"]
    jobs = [job for block in blocks for job in plan_jobs(STUDY, tmp_path / block)]
    folders = []

    def train(overrides, folder, *, resume):
        folders.append(folder.relative_to(tmp_path).as_posix())
        runs.write_run(folder, overrides)

    train_missing(jobs, train, workers=1, watch=Watch())
    assert folders == [
        f"{block}/{row}/seed{seed}"
        for row in ("online", "ce")
        for block in blocks
        for seed in (0, 1)
    ]


def test_finished_runs_are_not_trained_again(tmp_path, runs):
    train_missing(plan_jobs(STUDY, tmp_path), FakeTrainer(runs), workers=2, watch=Watch())
    again = FakeTrainer(runs)
    train_missing(plan_jobs(STUDY, tmp_path), again, workers=2, watch=Watch())
    assert again.calls == []


def test_no_more_than_the_given_number_run_at_once(tmp_path, runs):
    train = FakeTrainer(runs)
    train_missing(plan_jobs(STUDY, tmp_path), train, workers=2, watch=Watch())
    assert train.most == 2


def test_an_unfinished_run_goes_on_from_its_checkpoint(tmp_path, runs):
    job = plan_jobs(STUDY, tmp_path)[0]
    runs.write_run(job.folder, job.overrides)
    (job.folder / "summary.json").unlink()
    (job.folder / "checkpoints").mkdir()
    (job.folder / "checkpoints" / "000000000100.checkpoint").touch()
    train = FakeTrainer(runs)
    train_missing(plan_jobs(STUDY, tmp_path), train, workers=1, watch=Watch())
    assert ("ce", "seed0", True) in train.calls
    assert ("ce", "seed1", False) in train.calls


def test_an_unfinished_run_without_a_checkpoint_begins_again(tmp_path, runs):
    job = plan_jobs(STUDY, tmp_path)[0]
    runs.write_run(job.folder, job.overrides)
    (job.folder / "summary.json").unlink()
    (job.folder / "left-over").touch()
    train = FakeTrainer(runs)
    train_missing(plan_jobs(STUDY, tmp_path), train, workers=1, watch=Watch())
    assert ("ce", "seed0", False) in train.calls
    assert not (job.folder / "left-over").exists()


def test_a_failure_is_told_after_the_others_were_trained(tmp_path, runs):
    train, watch = FakeTrainer(runs, fails=("online",)), Watch()
    with pytest.raises(MetalossError, match=r"2 of 4 runs failed; the first: .*no luck"):
        train_missing(plan_jobs(STUDY, tmp_path), train, workers=2, watch=watch)
    assert (tmp_path / "ce" / "seed1" / "summary.json").exists()
    assert "no luck" in watch.ended_with["online", 0]


def test_a_trainer_that_leaves_no_summary_has_failed(tmp_path):
    with pytest.raises(MetalossError, match=r"not finished \(no summary"):
        train_missing(
            plan_jobs(STUDY, tmp_path)[:1], lambda *_, **__: "ok", workers=1, watch=Watch()
        )


class Together:
    """Writes the runs of a whole program, or refuses to."""

    def __init__(self, runs, refuses=False, fails=False):
        self.runs, self.refuses, self.fails, self.calls = runs, refuses, fails, []

    def __call__(self, overrides, folder, *, resume):
        words = dict(word.split("=", 1) for word in overrides)
        count = int(words.pop("seeds", 1))
        self.calls.append((folder.name, int(words["seed"]), count))
        if count > 1 and self.refuses:
            raise RefusedError("train the seeds one at a time")
        for seed in range(int(words["seed"]), int(words["seed"]) + count):
            words["seed"] = str(seed)
            place = folder / f"seed{seed}" if count > 1 else folder
            self.runs.write_run(place, [f"{key}={value}" for key, value in words.items()])
            if count > 1 and self.fails:
                raise MetalossError("killed")
        return "ok"


def test_seeds_of_a_row_are_trained_as_one_program(tmp_path, runs):
    train, watch = Together(runs), Watch()
    study = replace(STUDY, seeds=(0, 1, 2, 5, 6))
    train_missing(plan_jobs(study, tmp_path), train, workers=1, watch=watch, together=2)
    assert sorted(train.calls) == [
        ("ce", 0, 2), ("ce", 5, 2), ("online", 0, 2), ("online", 5, 2), ("seed2", 2, 1),
        ("seed2", 2, 1),
    ]  # fmt: skip
    assert len(watch.ended_with) == 10
    assert set(watch.ended_with.values()) == {""}
    assert all(job.state is State.finished for job in plan_jobs(study, tmp_path))


def test_seeds_that_cannot_be_one_program_are_trained_one_after_the_other(tmp_path, runs):
    train, watch = Together(runs, refuses=True), Watch()
    train_missing(plan_jobs(STUDY, tmp_path), train, workers=1, watch=watch, together=8)
    assert [count for _, _, count in train.calls] == [2, 1, 1, 2, 1, 1]
    assert set(watch.ended_with.values()) == {""}


def test_a_program_that_ends_early_has_failed_for_those_it_left(tmp_path, runs):
    train, watch = Together(runs, fails=True), Watch()
    with pytest.raises(MetalossError, match="2 of 4 runs failed; the first: killed"):
        train_missing(plan_jobs(STUDY, tmp_path), train, workers=1, watch=watch, together=8)
    assert watch.ended_with["online", 0] == ""
    assert watch.ended_with["online", 1] == "killed"


def test_runs_that_were_begun_alone_go_on_alone(tmp_path, runs):
    job = plan_jobs(STUDY, tmp_path)[0]
    runs.write_run(job.folder, job.overrides)
    (job.folder / "summary.json").unlink()
    train = Together(runs)
    train_missing(plan_jobs(STUDY, tmp_path), train, workers=1, watch=Watch(), together=8)
    assert ("seed0", 0, 1) in train.calls
    assert ("seed1", 1, 1) in train.calls
    assert ("online", 0, 2) in train.calls


REPLAY = replace(STUDY, rows=(Row(name="both", overrides=("schedule=replay",)),))


def stopped(folder, seeds):
    """Make the folder of a group that was stopped in the first of two passes."""
    (folder / "first").mkdir(parents=True)
    words = [*REPLAY.common, "schedule=replay", f"seeds={seeds}", "tracker=[]"]
    (folder / "passes.yaml").write_text(to_yaml(compose(words)))


def test_seeds_whose_first_pass_still_writes_its_checkpoints_are_waited_for(tmp_path, monkeypatch):
    stopped(tmp_path / "both", 2)
    happened = []

    def is_busy(folder):
        happened.append(str(folder.relative_to(tmp_path)))
        return len(happened) == 1

    def train(overrides, folder, *, resume):
        happened.append((folder.name, resume))

    monkeypatch.setattr("metaloss.study.launch.launch.is_busy", is_busy)
    with pytest.raises(MetalossError, match="2 of 2 runs failed"):
        train_missing(plan_jobs(REPLAY, tmp_path), train, workers=1, watch=Watch(), together=8)
    assert happened == [*["both/first/seed0", "both/first/seed1"] * 2, ("both", True)]


@pytest.mark.parametrize("seeds", [2, 3])
def test_seeds_that_were_stopped_in_a_first_pass_go_on_if_they_are_the_same(tmp_path, runs, seeds):
    stopped(tmp_path / "both", seeds)
    calls = []

    def train(overrides, folder, *, resume):
        calls.append((folder.name, resume))
        if not resume and folder.name == "both":
            raise RefusedError("is not empty")
        for job in jobs if resume else [job for job in jobs if job.folder == folder]:
            runs.write_run(job.folder, job.overrides)
        return "ok"

    jobs = plan_jobs(REPLAY, tmp_path)
    train_missing(jobs, train, workers=1, watch=Watch(), together=8)
    alone = [("both", False), ("seed0", False), ("seed1", False)]
    assert calls == ([("both", True)] if seeds == 2 else alone)


def test_if_one_seed_diverges_in_a_first_pass_the_others_are_trained_alone(tmp_path, runs):
    watch = Watch()

    def train(overrides, folder, *, resume):
        if folder.name == "both":
            stopped(folder, 2)
        if folder.name == "seed1":
            runs.write_run(folder, overrides)
        return "ok" if folder.name == "seed1" else "diverged"

    with pytest.raises(MetalossError, match="1 of 2 runs failed"):
        train_missing(plan_jobs(REPLAY, tmp_path), train, workers=1, watch=watch, together=8)
    assert watch.ended_with["both", 1] == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_what_runs_and_starts_nothing_more(tmp_path, number):
    class Slow:
        stopped = threading.Event()
        calls = 0

        def __call__(self, overrides, folder, *, resume):
            self.calls += 1
            if self.calls == 1:
                os.kill(os.getpid(), number)
            assert self.stopped.wait(20)
            raise MetalossError("stopped")

        def stop(self):
            self.stopped.set()

    train = Slow()
    train.stopped.clear()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train_missing(plan_jobs(STUDY, tmp_path), train, workers=1, watch=Watch())
    assert train.calls == 1
    assert signal.getsignal(signal.SIGTERM) is before
