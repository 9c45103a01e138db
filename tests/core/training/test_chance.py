"""What a run ends with is compared with the best constant prediction, and people are told."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import metaloss
from metaloss.cli.main import main
from metaloss.core.training.evaluate import constant_metric, constant_metrics, is_chance
from metaloss.core.training.recorder import Recorder
from metaloss.data.tensors import TaskOptions
from metaloss.types import Batch, Link

from ..small_setups import blobs, fast, line, net


@pytest.fixture
def told(monkeypatch):
    """Return the notices of the runs of a test, as they are said."""
    messages, notice = [], Recorder.notice

    def hear(self, step, message, level="warning"):
        messages.append(message)
        notice(self, step, message, level)

    monkeypatch.setattr(Recorder, "notice", hear)
    return lambda: messages


def still(tmp_path, *words):
    """A run whose model never moves from predicting the classes' shares."""
    model = net()
    torch.nn.init.zeros_(model[-1].weight)
    with torch.no_grad():
        model[-1].bias.copy_(torch.bincount(blobs().train.targets).log())
    words = [*fast("schedule=static", "inner.lr=1e-12", "steps=20", *words), f"output={tmp_path}"]
    return metaloss.train(words, task=blobs(), model=model)


def test_a_run_that_learned_nothing_says_so_and_is_ok(tmp_path, told):
    run = still(tmp_path, "loss=cross_entropy")
    assert (run.summary.status, run.summary.guard_events) == ("ok", [])
    assert run.summary.learned_nothing is True
    (message,) = [text for text in told() if "learned nothing" in text]
    assert message == (
        "the model has learned nothing: test/error is 0.6667, that of the best constant "
        "prediction 0.6667"
    )


def test_a_run_that_learned_says_nothing(tmp_path, told):
    words = fast("schedule=static", "loss=cross_entropy", "steps=60", f"output={tmp_path}")
    run = metaloss.train(words, task=blobs(), model=net())
    assert run.summary.learned_nothing is False
    assert run.summary.metrics["test/error"] < 0.5
    found = run.summary.metrics_of_a_constant
    assert found == {"valid/error": pytest.approx(2 / 3), "test/error": pytest.approx(2 / 3)}
    assert told() == []


def test_a_short_run_that_learns_its_loss_is_not_called_diverged(tmp_path, told):
    run = still(tmp_path, "schedule=online")
    assert (run.summary.status, run.summary.guard_events) == ("ok", [])
    assert run.summary.learned_nothing is True
    assert len([text for text in told() if "learned nothing" in text]) == 1


def test_the_command_line_says_it_in_the_line_of_the_run(tmp_path, capsys):
    words = [
        "task=digits",
        "schedule=static",
        "loss=cross_entropy",
        "inner.lr=1e-12",
        "steps=3",
        "seed=3",
    ]
    assert main(["train", *words, "tracker=[]", f"output={tmp_path / 'a'}"]) == 0
    assert ", no better than the best constant prediction" in capsys.readouterr().out
    assert json.loads((tmp_path / "a/summary.json").read_text())["learned_nothing"] is True
    assert main(["train", *words, f"output={tmp_path / 'b'}"]) == 0
    assert "warning  no better than the best constant prediction" in capsys.readouterr().out


def test_both_the_metric_and_the_task_loss_must_be_no_better():
    task = blobs()
    constants = constant_metrics(task)
    chance = {"test/error": constants["test/error"], "test/task_loss": task.constant_loss}
    assert is_chance(chance, constants, task)
    assert not is_chance(chance | {"test/error": 0.1}, constants, task)
    assert not is_chance(chance | {"test/task_loss": 0.1}, constants, task)


# --------------------------------------------------------------------------- the constant itself


def test_the_constant_of_classes_leaves_out_the_ignored_ones():
    task = blobs()
    targets = torch.tensor([0] * 20 + [1] * 14 + [-100] * 30)
    task = replace(task, train=Batch(task.train.inputs, targets))
    for split in ("valid", "test"):
        expected = (getattr(task, split).targets != 0).float().mean().item()
        assert constant_metric(task, split) == pytest.approx(expected)


@pytest.mark.parametrize("places", [(), (5,), (2, 3)])
def test_the_constant_of_values_is_the_mean_of_each_output(places):
    draw = torch.Generator().manual_seed(0)
    targets = torch.randn(30, 2, *places, generator=draw) + torch.arange(2.0).view(
        1, 2, *[1] * len(places)
    )
    rows = torch.randn(30, 4, generator=draw), targets
    task = metaloss.task_from_data(rows, rows, rows)
    mean = targets.transpose(0, 1).flatten(1).mean(1).view(1, 2, *[1] * len(places))
    expected = ((targets - mean) ** 2).mean().item()
    assert constant_metric(task, "test") == pytest.approx(expected, rel=1e-5)


def test_the_constant_of_yes_no_outputs_is_each_ones_majority():
    targets = torch.tensor([[1.0, 0.0]] * 7 + [[0.0, 0.0]] * 3 + [[1.0, 1.0]] * 4)
    rows = torch.zeros(14, 4), targets
    task = metaloss.task_from_data(rows, rows, rows, options=TaskOptions(link=Link.sigmoid))
    assert constant_metric(task) == pytest.approx((3 / 14 + 4 / 14) / 2)


def gaussian(outputs, targets):
    """Negative log-likelihood of a normal whose mean and log-spread are the two outputs."""
    mean, log_spread = outputs.chunk(2, 1)
    return (0.5 * ((targets - mean) / log_spread.exp()) ** 2 + log_spread).mean()


def test_where_outputs_are_no_predictions_the_constant_is_fitted():
    task = line()
    task = replace(
        task,
        outputs=2,
        task_loss=gaussian,
        metric=lambda outputs, targets: F.mse_loss(outputs[:, :1], targets),
    )
    expected = ((task.test.targets - task.train.targets.mean()) ** 2).mean().item()
    assert constant_metric(task, "test") == pytest.approx(expected, rel=1e-3)


def test_a_metric_that_no_constant_suits_is_unknown_and_nothing_is_said(tmp_path, told):
    def metric(outputs, targets):
        if (outputs == outputs[0]).all():
            raise ValueError("a rank correlation of outputs that are all alike is not defined")
        return (outputs.argmax(1) != targets).float().mean()

    task = replace(blobs(), metric=metric)
    assert math.isnan(constant_metric(task))
    words = fast("schedule=static", "loss=cross_entropy", "inner.lr=1e-12", "steps=3")
    run = metaloss.train([*words, f"output={tmp_path}"], task=task, model=net())
    assert run.summary.metrics_of_a_constant == {}
    assert run.summary.learned_nothing is False
    assert told() == []
