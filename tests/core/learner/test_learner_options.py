"""Arguments that a learner takes and refuses, and its compiled steps."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from metaloss import Learner
from metaloss.errors import MetalossError
from metaloss.inner import SGD, Adam
from metaloss.inner.optimizers.rates import RateSchedule
from metaloss.meta_optimizers.higher import Higher
from metaloss.meta_optimizers.mixed import Mixed

from ..small_setups import net
from .made_learners import assert_equal, batches, make, make_loss, values


def test_parts_are_taken_by_their_registered_names():
    named, made = (
        make(inner="adam", meta_optimizer="higher"),
        make(inner=Adam(), meta_optimizer=Higher()),
    )
    before = values(named)
    for batch, meta in batches(3):
        named.step(batch, meta), made.step(batch, meta)
    assert_equal(values(named), values(made))
    assert any(not torch.equal(before[name], now) for name, now in values(named).items())


def _frozen():
    model = net()
    model.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make(inner=torch.optim.SGD), "inner is a type: expected InnerOptimizer, such as"),
        (lambda: make(meta_optimizer=SGD()), "meta_optimizer is a SGD: expected Engine, such"),
        (lambda: make(meta_optimizer="mixt"), "unknown meta_optimizer 'mixt': did you mean 'mixed"),
        (
            lambda: make(meta_optimizer=Mixed(lr_schedule=RateSchedule.cosine)),
            "lr_schedule=cosine: a loop of your own has no known number",
        ),
        (
            lambda: Learner(_frozen(), make_loss(), task_loss=F.cross_entropy),
            "the model has no parameters that require a gradient",
        ),
        (
            lambda: Learner("mlp", make_loss(), task_loss=F.cross_entropy),
            "model is a str: expected a torch.nn.Module",
        ),
        (
            lambda: Learner(net(), F.cross_entropy, task_loss=F.cross_entropy),
            "loss is a function: expected a torch.nn.Module",
        ),
        (
            lambda: Learner(net(), make_loss(), task_loss="mse").step(*batches(1)[0]),
            "task_loss is a str: expected a function of raw outputs and targets",
        ),
        (lambda: make(clip="x"), "clip=x: expected a number ≥ 0"),
        (lambda: make(compile="onn"), "unknown compile 'onn': did you mean 'on'"),
        (lambda: make(compile="auto"), "unknown compile 'auto'"),
        (
            lambda: make(compile="trace", meta_optimizer="higher").step(*batches(1)[0]),
            "compile=trace: only the engines mixed and finite_difference .*: use compile=off",
        ),
        (
            lambda: make(nn.RReLU(), compile="trace").step(*batches(1)[0]),
            "compile=trace: the model draws random numbers outside of nn.Dropout",
        ),
        (lambda: make().step([]), r"step\(\) got an empty list"),
        (lambda: make().evaluate([]), r"evaluate\(\) got no rows that count"),
        (
            lambda: make().evaluate([batches(1)[0][0]], lambda outputs, targets: None),
            "the metric returns None: expected a scalar, a mean over rows",
        ),
        (
            lambda: Learner(net(), nn.CrossEntropyLoss(), task_loss=F.cross_entropy).step(
                *batches(1)[0]
            ),
            r"the loss CrossEntropyLoss has no parameters to learn: .* such as MLPLoss\(\)",
        ),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(MetalossError, match=message):
        call()


def test_an_engine_can_be_named():
    one, other = make(meta_optimizer="mixed"), make(meta_optimizer=Mixed())
    for pair in batches(2):
        one.step(*pair)
        other.step(*pair)
    assert_equal(values(one), values(other))


def _doubled(compile, *parts):
    learner = make(*copy.deepcopy(parts), compile=compile, inner=Adam(lr=0.01))
    model, loss = learner.model.double(), learner.loss.double()
    return Learner(
        model,
        loss,
        task_loss=F.cross_entropy,
        inner=Adam(lr=0.01),
        meta_optimizer=Mixed(lr=0.1),
        compile=compile,
    )


@pytest.mark.parametrize("unroll", [1, 3])
@pytest.mark.parametrize("parts", [(nn.Dropout(0.3),), (nn.BatchNorm1d(5),)], ids=str)
def test_traced_steps_are_the_eager_ones(unroll, parts):
    eager, traced = _doubled("off", *parts), _doubled("trace", *parts)
    doubled = [
        tuple((inputs.double(), targets) for inputs, targets in pair) for pair in batches(12)
    ]
    begun = values(eager)
    for first in range(0, 12, unroll):
        window = [batch for batch, _ in doubled[first : first + unroll]]
        meta = None if first == 3 else doubled[first][1]  # once without a meta-step
        losses = [one.step(list(window), meta) for one in (eager, traced)]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-9, atol=1e-12, equal_nan=True)
    for name, value in values(eager).items():
        torch.testing.assert_close(values(traced)[name], value, rtol=1e-9, atol=1e-12)
        assert name.endswith("num_batches_tracked") or not torch.equal(value, begun[name])


@pytest.mark.faults
def test_a_compiled_step_of_ones_own_is_the_eager_one():
    eager, compiled = _doubled("off"), _doubled("on")
    for batch, meta in batches(3):
        pair = [(rows[0].double(), rows[1]) for rows in (batch, meta)]
        losses = [one.step(*pair) for one in (eager, compiled)]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-9, atol=1e-12)
    for name, value in values(eager).items():
        torch.testing.assert_close(values(compiled)[name], value, rtol=1e-9, atol=1e-12)
