"""Runs that crash at every single write, or hear Ctrl-C, and go on."""

import os
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from torch import nn
from torch.nn import functional as F

import metaloss
from metaloss import registry
from metaloss.contracts import Noticed, Tracker
from metaloss.core import recorder
from metaloss.core.interrupt import Interrupt
from metaloss.errors import MetalossError

from .endings import assert_same_ending
from .worlds import blobs, fast, net

RUNS = {
    "online after offline": ("schedule=online", "schedule.offline_steps=4", "schedule.unroll=2"),
    "next": ("schedule=online", "schedule.meta_batch=next"),
    "static": ("schedule=static", "loss=cross_entropy", "schedule.early_stopping=2"),
}


def model():
    return net(nn.BatchNorm1d(5), nn.Dropout(0.3))


def train(folder, *words, task=None):
    words = fast(
        f"output={folder}", "log_every=2", "eval_every=4", "checkpoint_every=3", "steps=12", *words
    )
    return metaloss.train(words, task=task or blobs(), model=model())


def resume(folder, task=None, **given):
    return metaloss.resume_run(folder, task=task or blobs(), model=model(), **given)


class Crash(BaseException):
    """The power is cut: no ``except Exception`` may catch it."""


class Saboteur:
    """Lets the power fail at a numbered one of all writes."""

    def __init__(self, monkeypatch):
        self.left = None
        self.count = 0
        for owner, name in (
            (os, "fsync"),
            (Path, "replace"),
            (Path, "unlink"),
            (recorder.Journal, "write"),
        ):
            for when in ("before", "after"):
                self._plant(monkeypatch, owner, name, when)

    def _plant(self, monkeypatch, owner, name, when):
        original = getattr(owner, name)

        def sabotaged(*args, **kwargs):
            if when == "before":
                self._tick()
            result = original(*args, **kwargs)
            if when == "after":
                self._tick()
            return result

        monkeypatch.setattr(owner, name, sabotaged)

    def _tick(self):
        self.count += 1
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                self.left = None
                raise Crash


@pytest.mark.slow
@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS)
def test_a_crash_at_any_write_changes_nothing_in_the_end(words, tmp_path, monkeypatch):
    train(tmp_path / "whole", *words)
    saboteur = Saboteur(monkeypatch)
    train(tmp_path / "counted", *words)
    count = saboteur.count
    assert count > 100
    crashed = 0
    # The first writes closely, with the first checkpoint among them; then by a stride that visits
    # all kinds: every single one would take minutes.
    for place in (*range(1, 40, 4), *range(40, count, 31)):
        folder = tmp_path / f"{place}"
        saboteur.left = place
        try:
            train(folder, *words)
        except Crash:
            crashed += 1
        saboteur.left = None
        if not (folder / "config.yaml").exists():
            continue
        if not (folder / "summary.json").exists():
            resume(folder)
        assert_same_ending(folder, tmp_path / "whole")
    assert crashed > 3


# ----------------------------------------------------------------------------------- Ctrl-C


def interrupting(at, times=1):
    """Return a task whose judge presses Ctrl-C at its n-th question."""
    calls = []

    def judge(outputs, targets):
        calls.append(1)
        if len(calls) == at:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return F.cross_entropy(outputs, targets)

    return replace(blobs(), task_loss=judge)


@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS)
def test_ctrl_c_writes_a_checkpoint_and_the_run_goes_on(words, tmp_path):
    train(tmp_path / "whole", *words)
    learns = "schedule=online" in words
    # After the 20 questions of the start, in the middle of training.
    task = interrupting(at=20 + 18 if learns else 8)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"go on with:? metaloss train --resume"):
        train(tmp_path / "run", *words, task=task)
    assert signal.getsignal(signal.SIGINT) is before
    assert len(list((tmp_path / "run/checkpoints").iterdir())) in (1, 2)
    assert not (tmp_path / "run/summary.json").exists()
    resume(tmp_path / "run")
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


def test_ctrl_c_in_the_start_begins_anew(tmp_path):
    words = ("schedule=online", "start.steps=500")
    train(tmp_path / "whole", *words)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", *words, task=interrupting(at=300))
    assert not (tmp_path / "run/checkpoints").exists()
    resume(tmp_path / "run")
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


def test_a_second_ctrl_c_acts_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt) as caught:
        train(tmp_path, *RUNS["next"], task=interrupting(at=20 + 10, times=2))
    assert not caught.value.args
    resume(tmp_path)


def test_sigterm_is_heard_like_ctrl_c():
    with Interrupt() as interrupt:
        interrupt.check("hint")
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt, match="hint"):
            interrupt.check("hint")


def test_other_threads_are_left_without_handlers():
    import threading

    seen = []

    def work():
        with Interrupt() as interrupt:
            seen.append(interrupt.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


# ------------------------------------------------------------------------------ going on


def test_a_finished_run_can_be_made_longer(tmp_path):
    words = RUNS["online after offline"]
    train(tmp_path / "whole", *words, "steps=24")
    train(tmp_path / "run", *words)
    run = resume(tmp_path / "run", steps=24)
    assert run.summary["steps"] == 24
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


@dataclass(frozen=True, kw_only=True)
class Spy(Tracker):
    """Remembers events."""

    label: str = field(default="", metadata={"help": "nothing"})

    def handle(self, event):
        EVENTS.append(event)


EVENTS = []


@pytest.fixture
def spy(monkeypatch):
    EVENTS.clear()
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    registry.register("tracker", "spy")(Spy)
    return EVENTS


def test_a_damaged_newest_checkpoint_falls_back_and_says_so(tmp_path, spy):
    words = RUNS["next"]
    train(tmp_path / "whole", *words)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", *words, task=interrupting(at=20 + 18))
    newest = max((tmp_path / "run/checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    resume(tmp_path / "run", tracker={"spy": Spy()})
    messages = [event.message for event in spy if isinstance(event, Noticed)]
    assert len(messages) == 1
    assert f"checkpoint {newest.name} is damaged" in messages[0]
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


def test_events_of_a_resumed_run_go_on_growing(tmp_path, spy):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, *RUNS["next"], "tracker=[spy]", task=interrupting(at=20 + 18))
    steps = [event.step for event in spy if hasattr(event, "numbers")]
    began = len(spy)
    resume(tmp_path)
    later = [event.step for event in spy[began:] if hasattr(event, "numbers")]
    assert steps == sorted(set(steps))
    assert later == sorted(set(later))
    assert later[-1] == 20 + 12
    started = [event for event in spy if hasattr(event, "totals")]
    assert [event.resumed_from for event in started] == [None, started[1].resumed_from]
    assert started[1].resumed_from > 20
    assert [dict(event.totals) for event in started] == 2 * [{"start": 20, "train": 12}]


def test_what_cannot_be_resumed_says_why(tmp_path):
    with pytest.raises(MetalossError, match="there is no run in it"):
        metaloss.resume_run(tmp_path)
    train(tmp_path / "run", *RUNS["static"], "schedule.early_stopping=0")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")}
    folder = tmp_path / "run"
    for given, message in (
        ({}, "the run was made with a task of your own: go on from Python"),
        ({"task": blobs()}, "the run was made with a model of your own"),
        (
            {"task": blobs(), "model": model(), "loss": metaloss.losses.MLPLoss()},
            "the run was made with loss=cross_entropy, not with a loss of your own",
        ),
        ({"task": blobs(), "model": model()}, "the run is finished, with 12 steps; .*steps=24"),
        ({"task": blobs(), "model": model(), "steps": 12}, "the run is finished, with 12 steps"),
    ):
        with pytest.raises(MetalossError, match=message):
            metaloss.resume_run(folder, **given)
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def test_a_run_that_lost_its_checkpoints_is_not_started_over_in_silence(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, *RUNS["next"], task=interrupting(at=20 + 18))
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    before = (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(MetalossError, match="there is no checkpoint to go on from; start a new"):
        resume(tmp_path)
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_a_run_that_still_goes_on_is_not_resumed_beside_itself(tmp_path):
    def judge(outputs, targets):
        if (tmp_path / "run/checkpoints").exists() and not seen:
            try:
                metaloss.resume_run(tmp_path / "run", task=blobs(), model=model())
            except MetalossError as error:
                seen.append(str(error))
        return F.cross_entropy(outputs, targets)

    seen = []
    train(tmp_path / "run", *RUNS["next"], task=replace(blobs(), task_loss=judge))
    assert "is being written by another process: is this run still going?" in seen[0]
    train(tmp_path / "whole", *RUNS["next"])
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


def test_a_journal_that_lost_lines_is_not_resumed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, *RUNS["next"], task=interrupting(at=20 + 18))
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:100])
    with pytest.raises(MetalossError, match="it was cut or replaced"):
        resume(tmp_path)


def test_the_same_weights_come_back(tmp_path):
    """The comparison of endings itself sees a difference of one bit."""
    train(tmp_path / "a", *RUNS["next"])
    train(tmp_path / "b", *RUNS["next"], "inner.lr=0.10000001")
    with pytest.raises(AssertionError):
        assert_same_ending(tmp_path / "a", tmp_path / "b")
