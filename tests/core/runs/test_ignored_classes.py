"""Which class index does not count is the task's to say: the loss of a run goes by it."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import metaloss
from metaloss.core.parts.setup import build_loss
from metaloss.core.training.evaluate import constant_metric
from metaloss.errors import MetalossError
from metaloss.losses import MLPLoss
from metaloss.losses.export import load_loss
from metaloss.types import Batch

from ..small_setups import blobs, config, fast, net

IGNORED = 255


def error(outputs, targets):
    counted = targets != IGNORED
    return ((outputs.argmax(1) != targets) & counted).sum() / counted.sum()


def task():
    """Return the task of three classes with a quarter of the training rows unlabelled."""
    found = replace(
        blobs(),
        task_loss=lambda outputs, targets: F.cross_entropy(outputs, targets, ignore_index=IGNORED),
        metric=error,
    )
    targets = found.train.targets.clone()
    targets[::4] = IGNORED
    return replace(found, train=Batch(found.train.inputs, targets), ignore_index=IGNORED)


@pytest.mark.parametrize("name", ["mlp", "taylor", "symbolic", "scaled", "cross_entropy", "gce"])
def test_a_loss_made_for_a_task_leaves_out_what_the_task_leaves_out(name):
    loss = build_loss(config(f"loss={name}").loss, task(), 0)
    assert loss.ignore_index == IGNORED
    outputs, target = torch.randn(4, 3), torch.tensor([0, IGNORED, 2, IGNORED])
    torch.testing.assert_close(loss(outputs, target), loss(outputs[::2], target[::2]))


def test_logit_adjustment_counts_the_labelled_rows():
    own = task()
    labelled = own.train.targets[own.train.targets != IGNORED]
    loss = build_loss(config("loss=logit_adjusted").loss, own, 0)
    expected = torch.bincount(labelled, minlength=3) / len(labelled)
    torch.testing.assert_close(loss.log_shares.exp(), expected)


def test_the_constant_is_that_of_the_labelled_rows():
    own = task()
    labelled = own.train.targets[own.train.targets != IGNORED]
    frequent = torch.bincount(labelled).argmax()
    assert constant_metric(own) == (own.valid.targets != frequent).float().mean().item()


def test_a_run_learns_from_the_labelled_rows_and_its_loss_keeps_the_index(tmp_path):
    words = [*fast("schedule=online", "steps=40"), f"output={tmp_path}"]
    run = metaloss.train(words, task=task(), model=net())
    assert run.summary.status == "ok"
    assert run.summary.metrics["test/error"] < 0.5
    assert run.loss.ignore_index == load_loss(tmp_path).ignore_index == IGNORED
    table = run.suspects(task=task()).sort_index()
    assert [*table["given"][:6]] == ["", "1", "2", "0", "", "2"]


def test_a_loss_of_ones_own_that_ignores_another_index_is_refused(tmp_path):
    words = [*fast("schedule=online", "steps=4", own_loss=True), f"output={tmp_path / 'run'}"]
    with pytest.raises(
        MetalossError, match=r"ignore_index=-100, the task blobs has ignore_index=255"
    ):
        metaloss.train(words, task=task(), model=net(), loss=MLPLoss())
    assert not (tmp_path / "run").exists()
    run = metaloss.train(words, task=task(), model=net(), loss=MLPLoss(ignore_index=IGNORED))
    assert run.summary.status == "ok"
