"""Runs that go on from their newest checkpoint, and those that cannot."""

import re
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch.nn import functional as F

import metaloss
from metaloss import registry
from metaloss.contracts import Noticed, Tracker
from metaloss.core.compilation.policy import _no_compiler
from metaloss.errors import MetalossError

from ..interrupted_runs import RUNS, interrupting, model, resume, train
from ..same_ending import assert_same_ending
from ..small_setups import blobs


def test_a_finished_run_can_be_made_longer(tmp_path):
    words = RUNS["online after offline"]
    train(tmp_path / "whole", *words, "steps=24")
    train(tmp_path / "run", *words)
    run = resume(tmp_path / "run", steps=24)
    assert run.summary.steps == 24
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("steps", [3, 7])
def test_a_run_that_is_ended_where_it_was_stopped_has_the_metrics_of_that_step(tmp_path, steps):
    words = ("schedule=static", "loss=cross_entropy", "inner.lr=1", "eval_every=4")
    measured = replace(blobs(), metric=F.cross_entropy)
    stopping = replace(interrupting(at=12), metric=F.cross_entropy)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, *words, task=stopping)
    run = resume(tmp_path, steps=steps, task=measured)
    assert run.summary.steps == 7
    outputs = run.outputs(measured.test.inputs)
    expected = F.cross_entropy(outputs, measured.test.targets).item()
    assert run.summary.metrics["test/error"] == run.journal()[-1]["test/error"] == expected


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
        train(tmp_path / "run", *words, task=interrupting(at=1 + 18))
    newest = max((tmp_path / "run/checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    resume(tmp_path / "run", tracker={"spy": Spy()})
    messages = [event.message for event in spy if isinstance(event, Noticed)]
    assert len(messages) == 1
    assert f"checkpoint {newest.name} is damaged" in messages[0]
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


def test_events_of_a_resumed_run_go_on_growing(tmp_path, spy):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, *RUNS["next"], "tracker=[spy]", task=interrupting(at=1 + 18))
    steps = [event.step for event in spy if hasattr(event, "numbers")]
    began = len(spy)
    resume(tmp_path)
    later = [event.step for event in spy[began:] if hasattr(event, "numbers")]
    assert steps == sorted(set(steps))
    assert later == sorted(set(later))
    assert later[-1] == 1 + 12
    started = [event for event in spy if hasattr(event, "totals")]
    assert [event.resumed_from for event in started] == [None, started[1].resumed_from]
    assert started[1].resumed_from > 1
    assert [dict(event.totals) for event in started] == 2 * [{"start": 1, "train": 12}]


def test_what_cannot_be_resumed_says_why(tmp_path):
    with pytest.raises(MetalossError, match="there is no run in it"):
        metaloss.resume_run(tmp_path)
    train(tmp_path / "run", *RUNS["static"], "schedule.early_stopping=0")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")}
    folder = tmp_path / "run"
    for given, message in (
        ({}, "the run was made with a task of your own: continue it in Python"),
        ({"task": blobs()}, "the run was made with a model of your own"),
        (
            {"task": blobs(), "model": model(), "loss": metaloss.losses.MLPLoss()},
            "the run was made with loss=cross_entropy, not with a loss of your own",
        ),
        ({"task": blobs(), "model": model()}, "the run is finished, with 12 steps; .*steps=24"),
        ({"task": blobs(), "model": model(), "steps": 12}, "the run is finished, with 12 steps"),
        ({"tracker": ["console"]}, "tracker is a list: expected options by the names of trackers"),
    ):
        with pytest.raises(MetalossError, match=message):
            metaloss.resume_run(folder, **given)
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def test_a_run_that_lost_its_checkpoints_is_not_started_over_in_silence(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, *RUNS["next"], task=interrupting(at=1 + 18))
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    before = (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(MetalossError, match="there is no checkpoint; start a new"):
        resume(tmp_path)
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_a_run_that_still_goes_on_is_not_resumed_beside_itself(tmp_path):
    def task_loss(outputs, targets):
        if (tmp_path / "run/checkpoints").exists() and not seen:
            try:
                metaloss.resume_run(tmp_path / "run", task=blobs(), model=model())
            except MetalossError as error:
                seen.append(str(error))
        return F.cross_entropy(outputs, targets)

    seen = []
    train(tmp_path / "run", *RUNS["next"], task=replace(blobs(), task_loss=task_loss))
    assert "is being written by another process: is this run still going?" in seen[0]
    train(tmp_path / "whole", *RUNS["next"])
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


def test_a_journal_that_lost_lines_is_not_resumed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, *RUNS["next"], task=interrupting(at=1 + 18))
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


def test_a_compiled_run_goes_on_eagerly_where_there_is_no_compiler(tmp_path, monkeypatch, caplog):
    words = RUNS["next"]
    train(tmp_path / "whole", *words)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", *words, task=interrupting(at=1 + 18))
    file = tmp_path / "run" / "config.yaml"
    # As if it had been compiled, on another machine.
    before = file.read_text()
    file.write_text(re.sub(r"(?m)^compile: .*$", "compile: 'on'", before))
    assert file.read_text() != before

    def missing(*_):
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch._inductor, "compile", missing)
    _no_compiler.cache_clear()
    caplog.set_level("WARNING", "metaloss")
    run = resume(tmp_path / "run")
    _no_compiler.cache_clear()
    assert (
        "the run continues without compilation: PyTorch's compiler does not work here"
        in caplog.text
    )
    assert run.summary.compile == "off"
    whole = metaloss.load_loss(tmp_path / "whole").state_dict()
    for name, value in run.loss.state_dict().items():
        assert torch.equal(value, whole[name])
