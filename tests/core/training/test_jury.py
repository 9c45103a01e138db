"""Movers and jury: who sees which rows, and which moment's weights a run ends with."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import metaloss
from metaloss.core.parts.jury import each, with_jury
from metaloss.core.training.best import Best
from metaloss.core.training.evaluate import outputs_of
from metaloss.core.training.jury import by_row, goes_back, standard_errors
from metaloss.errors import MetalossError
from metaloss.inner.model.functional import FunctionalModel
from metaloss.schedules import Online, Static
from metaloss.types import Batch, InnerState

from ..small_setups import blobs, fast, in_halves, line, net, setup, train

HALF = ("schedule=online", "schedule.jury=0.5")


def rows_of(batch):
    return {tuple(row.tolist()) for row in batch.inputs}


@pytest.mark.parametrize("trains", ["train", "validation", "train+validation"])
@pytest.mark.parametrize("jury", [0.25, 0.5])
def test_the_jury_moves_nothing(trains, jury):
    parts = setup("schedule=online", f"schedule.jury={jury}", f"schedule.train_on={trains}")
    task, whole = parts.task, blobs()
    assert len(task.jury.targets) == round(jury * 24)
    assert rows_of(task.valid) | rows_of(task.jury) == rows_of(whole.valid)
    assert not rows_of(task.valid) & rows_of(task.jury)
    for stream in parts.advance.streams.values():
        assert not rows_of(stream.rows) & rows_of(task.jury)
    assert rows_of(parts.advance.streams["meta/train"].rows) == rows_of(task.valid)
    counts = [task.jury.targets.bincount().tolist(), whole.valid.targets.bincount().tolist()]
    assert np.abs(np.array(counts[0]) - jury * np.array(counts[1])).max() < 1
    other = setup("schedule=online", f"schedule.jury={jury}", "seed=1").task
    assert rows_of(other.jury) != rows_of(task.jury)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (replace(blobs(), valid=Batch(*(one[:1] for one in blobs().valid))), "jury, of 1 trusted"),
        (replace(blobs(), valid=Batch(*(one[:2] for one in blobs().valid))), None),
    ],
)
def test_rows_for_both_are_needed(task, message):
    if message is None:
        assert len(with_jury(task, Online(jury=0.5), 0).jury.targets) == 1
        return
    with pytest.raises(MetalossError, match=message):
        with_jury(task, Online(jury=0.5), 0)


@pytest.mark.parametrize("value", ["1", "-0.5"])
def test_a_share_out_of_range_is_refused(value):
    with pytest.raises(MetalossError, match=rf"schedule.jury={value}.*: expected a number in"):
        metaloss.train(fast("schedule=online", f"schedule.jury={value}"))


def test_standard_errors_are_mcnemars():
    draw = torch.Generator().manual_seed(0)
    one, other = (torch.rand(400, generator=draw) < 0.3, torch.rand(400, generator=draw) < 0.2)
    b, c = int((one & ~other).sum()), int((other & ~one).sum())
    expected = (b - c) / math.sqrt(b + c)
    found = standard_errors(one.double(), other.double(), "min")
    assert found == pytest.approx(expected)
    assert found > 1
    assert standard_errors(other.double(), one.double(), "max") == pytest.approx(expected)
    assert standard_errors(one.double(), one.double(), "min") == 0
    ignored = torch.tensor([math.nan, 1.0, 0.0]), torch.tensor([0.0, 0.0, 0.0])
    assert standard_errors(*ignored, "min") == pytest.approx(1.0)


@pytest.mark.parametrize("metric", [F.mse_loss, lambda a, b: torch.tensor(float((a - b).abs()[0]))])
def test_the_metric_of_each_row(metric):
    outputs, targets = torch.randn(5, 1), torch.randn(5, 1)
    found = each(metric, outputs, targets)
    for one, output, target in zip(found, outputs, targets, strict=True):
        assert one == metric(output[None], target[None])


def ruined(seed=0):
    """Return a task whose training labels are noise: after some steps a model gets worse."""
    draw = torch.Generator().manual_seed(seed)
    task = blobs()
    labels = task.train.targets.clone()
    labels[:40] = torch.randint(3, (40,), generator=draw)
    return replace(task, train=Batch(task.train.inputs, labels))


RUINED = ("inner.lr=2.0", "steps=120", "eval_every=10", "schedule.jury=0.5")


def error_on(run, batch):
    functional = FunctionalModel(run.model)
    outputs = outputs_of(functional, InnerState(*functional.state(), None), batch.inputs)
    return blobs().metric(outputs, batch.targets).item()


@pytest.mark.parametrize("words", [("schedule=static", "loss=cross_entropy"), ("ema=0.9",)])
def test_a_run_ends_with_the_moment_that_the_jury_prefers(tmp_path, words):
    words = ("schedule=online", *words) if words[0].startswith("ema") else words
    run = train(tmp_path, *RUINED, *words, task=ruined())
    rows = [row for row in run.journal() if "jury/error" in row]
    names = {"current": "jury/error", "average": "ema_jury/error"}
    last = names["average" if "ema=0.9" in words else "current"]
    task = with_jury(ruined(), Online(jury=0.5), 0)
    ended, metrics = run.summary.ended_with, run.summary.metrics
    assert ended["rows"] == "jury of 12"
    assert metrics["jury/error"] == pytest.approx(error_on(run, task.jury))
    assert metrics["test/error"] == pytest.approx(error_on(run, task.test))
    assert metrics["valid/error"] == pytest.approx(error_on(run, task.valid))
    at = next(row for row in rows if row["phase_step"] == ended["step"])
    assert at[names[ended["weights"]]] == metrics["jury/error"]
    assert metrics["jury/error"] <= rows[-1][last]
    if words[0] == "schedule=static":
        assert ended["step"] < 120
        assert metrics["jury/error"] == min(row[last] for row in rows) < rows[-1][last]
        assert metaloss.load_run(tmp_path, model=net(), best=True).summary == run.summary


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_one_row_does_not_choose(rows):
    best, last = Best(rows=torch.zeros(12)), torch.zeros(12)
    last[:rows] = 1
    parts = SimpleNamespace(schedule=Online(jury=0.5), task=blobs())
    assert goes_back(parts, best, last) == (rows == 2)
    stopping = SimpleNamespace(schedule=Static(jury=0.5, early_stopping=3), task=blobs())
    assert goes_back(stopping, best, last)


def test_inputs_of_several_tensors_are_split():
    task = with_jury(in_halves(blobs()), Online(jury=0.5), 0)
    plain = with_jury(blobs(), Online(jury=0.5), 0)
    assert torch.equal(torch.cat([*task.jury.inputs.tree.values()], 1), plain.jury.inputs)


def test_a_regression_has_a_jury():
    parts = setup(*HALF, task=line(), model=net(outputs=1))
    assert len(parts.task.jury.targets) == 12
    state = parts.advance.fresh("train", 0)
    rows = by_row(parts.problem.model, state, parts.task)
    outputs = outputs_of(parts.problem.model, state, parts.task.jury.inputs)
    expected = parts.task.metric(outputs, parts.task.jury.targets)
    assert rows.shape == (12,)
    assert rows.mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_metric_that_is_no_mean_over_rows_has_no_jury():
    def explained(outputs, targets):
        return 1 - (outputs - targets).square().sum() / (targets - targets.mean()).square().sum()

    with pytest.raises(MetalossError, match=r"jury: the metric .* is not the mean of that of sing"):
        setup(*HALF, task=replace(line(), metric=explained), model=net(outputs=1))
