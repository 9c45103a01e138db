"""The user's own objects in a run, and everything global around it, stay as they are."""

import copy
import json
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metaloss
from metaloss.errors import MetalossError
from metaloss.losses import MLPLoss
from metaloss.losses.mlp import MLPLossConfig
from metaloss.types import Batch

from ..small_setups import blobs, files_of, line, net, train


def test_the_users_model_and_loss_stay_as_they_are(tmp_path):
    model, loss = net(nn.BatchNorm1d(5)), MLPLoss(MLPLossConfig(hidden=[6]))
    before = copy.deepcopy((model.state_dict(), loss.state_dict()))
    run = train(tmp_path, "schedule=online", "steps=10", "start=keep", model=model, loss=loss)
    for module, state in zip((model, loss), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
        assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert run.model is not model
    assert run.loss is not loss
    assert not torch.equal(run.model[0].weight, model[0].weight)
    assert not torch.equal(run.loss.layers[0].weight, loss.layers[0].weight)
    assert json.loads((run.folder / "loss.json").read_text())["family"] == "mlp"


def test_training_begins_with_the_users_own_weights(tmp_path):
    model = net(seed=9)
    run = train(tmp_path, "schedule=static", "steps=1", "inner.lr=1e-30", model=model)
    assert torch.equal(run.model[0].weight, model[0].weight)
    task = blobs()
    error = task.metric(model(task.test.inputs), task.test.targets).item()
    assert run.journal()[-1]["test/error"] == pytest.approx(error)


def test_a_loss_that_is_not_registered_trains_but_is_not_exported(tmp_path):
    class Mine(metaloss.losses.LearnedLoss):
        def __init__(self):
            super().__init__()
            self.power = nn.Parameter(torch.ones(()))

        def pointwise(self, prediction, target):
            return (prediction - target).abs() ** (1 + self.power**2)

    run = train(tmp_path, "schedule=online", "start=keep", "steps=10", loss=Mine())
    assert run.loss.power != 1
    assert not (run.folder / "loss.json").exists()
    assert (run.folder / "summary.json").exists()


class Counting(nn.Module):
    """Has an entry of its state that is no tensor."""

    def __init__(self):
        super().__init__()
        self.body = net()

    def forward(self, inputs):
        return self.body(inputs)

    def get_extra_state(self):
        return {"made": "today"}

    def set_extra_state(self, state):
        self.made = state["made"]


def test_a_model_whose_state_is_not_of_tensors_alone_is_saved(tmp_path):
    run = train(tmp_path, "schedule=online", "steps=5", model=Counting())
    again = metaloss.load_run(run.folder, model=Counting())
    inputs = blobs().test.inputs
    assert torch.equal(again.outputs(inputs), run.outputs(inputs))
    assert not torch.equal(again.model.body[0].weight, Counting().body[0].weight)


def test_a_metric_may_be_a_tensor_of_one_number(tmp_path):
    def error(outputs, targets):
        return (outputs.argmax(1) != targets).float().mean().reshape(1)

    ends = [
        train(tmp_path / name, "schedule=static", "steps=5", task=task).summary.metrics
        for name, task in (("own", replace(blobs(), metric=error)), ("task", blobs()))
    ]
    assert ends[0] == ends[1]


def test_frozen_parameters_stay_frozen(tmp_path):
    model = net()
    model[0].weight.requires_grad_(False)
    run = train(tmp_path, "schedule=online", "steps=10", model=model)
    assert torch.equal(run.model[0].weight, model[0].weight)
    assert not torch.equal(run.model[0].bias, model[0].bias)


def test_regression_runs(tmp_path):
    words = ("schedule=online", "steps=40", "start.steps=200")
    run = train(tmp_path, *words, task=line(), model=net(outputs=1))
    assert {*run.summary.metrics} == {"valid/mse", "test/mse"}
    first = run.journal()[0]
    assert run.summary.metrics["test/mse"] < first["test/mse"]


def test_bf16_keeps_the_loss_in_single_precision(tmp_path):
    run = train(tmp_path, "schedule=online", "steps=20", "precision=bf16")
    plain = train(tmp_path / "plain", "schedule=online", "steps=20")
    assert run.summary.status == "ok"
    for module in (run.model, run.loss):
        assert {value.dtype for value in module.parameters()} == {torch.float32}
    # bfloat16 has 8 bits: near, and not the same.
    ours, theirs = run.model[0].weight, plain.model[0].weight
    assert not torch.equal(ours, theirs)
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_global_is_touched(tmp_path, fails):
    def state():
        return (
            torch.get_rng_state().tolist(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_autocast_enabled("cpu"),
            signal.getsignal(signal.SIGINT),
            signal.getsignal(signal.SIGTERM),
        )

    before = state()
    words = ("schedule=online", "steps=10", "deterministic=true", "guard=raise")
    task = blobs()
    if fails:
        task = replace(task, train=Batch(task.train.inputs / 0, task.train.targets))
        with pytest.raises(MetalossError):
            train(tmp_path, *words, task=task)
    else:
        train(tmp_path, *words)
    assert state() == before


def test_models_with_their_own_randomness_run_and_repeat(tmp_path):
    class Noise(nn.Module):
        def forward(self, x):
            return x + 0.1 * torch.randn_like(x)

    before = torch.get_rng_state()
    runs = [
        train(tmp_path / name, "schedule=online", "steps=10", model=net(Noise())) for name in "ab"
    ]
    assert files_of(runs[0]) == files_of(runs[1])
    # This noise is there in evaluation as well.
    assert runs[0].summary.metrics == runs[1].summary.metrics
    assert torch.equal(torch.get_rng_state(), before)


def test_the_task_loss_of_the_user_is_taken(tmp_path):
    calls = []

    def task_loss(outputs, targets):
        calls.append(outputs.shape)
        return F.cross_entropy(outputs, targets)

    train(tmp_path, "schedule=online", "steps=3", task=replace(blobs(), task_loss=task_loss))
    assert torch.Size([8, 3]) in calls
