"""Derivatives that are missing or wrong are found before the loss moves by them."""

import copy
import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metaloss
from metaloss.errors import UnsupportedError
from metaloss.inner import SGD
from metaloss.losses import MLPLoss
from metaloss.losses.mlp import MLPLossConfig

from ..operators import LostCurvature, LostInBoth, WrongForwardMode, swish

ENGINES = ("mixed", "torchopt", "higher", "finite_difference")


class StraightThrough(nn.Module):
    def forward(self, x):
        return x + (torch.round(3 * x) / 3 - x).detach()


class Quiet(nn.Module):
    """A gate that θ does not move by."""

    def forward(self, x):
        with torch.no_grad():
            gate = torch.softmax(3 * x, 1)
        return x * gate


class Detached(nn.Module):
    def forward(self, x):
        return x * torch.softmax(3 * x, 1).detach()


class Of(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def answer(middle, engine, unroll, *, loss=None, dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(5, 8), middle, nn.Linear(8, 3)).to(dtype)
        loss = loss or MLPLoss(MLPLossConfig(hidden=[4])).to(dtype)
        pairs = [(torch.randn(6, 5).to(dtype), torch.randint(3, (6,))) for _ in range(unroll + 1)]
    given = {"inner": SGD(lr=0.3), "task_loss": F.cross_entropy, "engine": engine}
    found = metaloss.meta_gradient(model, loss, pairs[:-1], pairs[-1], **given)
    return torch.cat([value.flatten() for value in found.values()])


def distance(one, other):
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("unroll", [1, 2])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("middle", "same"),
    [
        (Of(swish), nn.SiLU()),
        (Of(WrongForwardMode.apply), Of(torch.sin)),
        (Quiet(), Detached()),
    ],
    ids=["operator", "wrong forward mode", "no_grad"],
)
def test_a_dropped_or_wrong_tangent_is_not_used(middle, same, engine, unroll):
    right = answer(same, "torchopt", unroll)
    assert right.norm() > 1e-5
    exact = engine != "finite_difference"
    assert distance(answer(middle, engine, unroll), right) < (1e-9 if exact else 1e-3)


@pytest.mark.parametrize("unroll", [1, 2])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_gradient_that_is_passed_straight_through_is_that_of_the_unroll(engine, unroll):
    right = answer(StraightThrough(), "torchopt", unroll)
    assert right.norm() > 1e-5
    assert distance(answer(StraightThrough(), engine, unroll), right) < 1e-9


def test_a_curvature_that_is_lost_in_the_backward_pass_is_refused():
    right = answer(Of(torch.sin), "mixed", 2)
    for engine in ENGINES[:3]:
        with pytest.raises(UnsupportedError, match=r"use meta_optimizer=finite_difference, which"):
            answer(Of(LostCurvature.apply), engine, 2)
    assert distance(answer(Of(LostCurvature.apply), "finite_difference", 2), right) < 1e-3
    # One step has no curvature.
    once = answer(Of(torch.sin), "mixed", 1)
    assert distance(answer(Of(LostCurvature.apply), "mixed", 1), once) < 1e-9


@pytest.mark.parametrize("wide", [True, False], ids=["double", "single alone"])
def test_a_curvature_that_both_exact_ways_lose_is_refused(wide):
    """The two agree with each other: differences of a smooth function are believed."""
    operator, right = Of(LostInBoth.apply), Of(torch.sin)
    if not wide:
        operator, right = (nn.Sequential(InSingle(), one) for one in (operator, right))
    given = {"dtype": torch.float64 if wide else torch.float32}
    for engine in ENGINES[:3]:
        with pytest.raises(UnsupportedError, match=r"of second order are wrong by .* %: use"):
            answer(operator, engine, 2, **given)
    far = 1e-3 if wide else 0.05
    true = answer(right, "mixed", 2, **given)
    assert distance(answer(operator, "finite_difference", 2, **given), true) < far


class InSingle(nn.Module):
    """Like an operator that is written for single precision alone."""

    def forward(self, x):
        if x.dtype is not torch.float32:
            raise TypeError("expected float32")
        return 2 * x


def test_a_loss_whose_mixed_derivative_is_lost_is_refused():
    class Lost(MLPLoss):
        def pointwise(self, prediction, target):
            return LostCurvature.apply(super().pointwise(prediction, target))

    class Kept(MLPLoss):
        def pointwise(self, prediction, target):
            return super().pointwise(prediction, target).sin()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        lost, kept = (kind(MLPLossConfig(hidden=[4])).double() for kind in (Lost, Kept))
    kept.load_state_dict(lost.state_dict())
    with pytest.raises(UnsupportedError, match=r"the loss.s derivative in φ differs from fin"):
        answer(nn.Tanh(), "mixed", 1, loss=lost)
    got = answer(nn.Tanh(), "finite_difference", 1, loss=lost)
    right = answer(nn.Tanh(), "mixed", 1, loss=kept)
    assert distance(got, right) < 1e-3


def test_a_loss_with_a_kink_next_to_its_parameters_is_not_refused(tmp_path):
    # The kink of a ReLU is within 1e-5 of φ along the direction that is tested.
    words = ["task=mnist1d", "model=linear", "loss=mwn", "start.steps=1", "compile=off", "seed=4"]
    common = ["schedule=online", "steps=1", "tracker=[]", f"output={tmp_path / 'run'}"]
    run = metaloss.train([*words, *common, "schedule.train_on=train+validation"])
    assert run.summary.status == "ok"


def test_a_loss_in_single_precision_is_tested_in_double_where_the_model_is():
    """Its differences have rounding errors of a percent with one of 80 seeds, such as this one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(22)
        model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        loss = MLPLoss(MLPLossConfig(hidden=[6]))
        batch = torch.randn(6, 5, dtype=torch.float64), torch.randint(3, (6,))
    given = {"inner": "sgd", "task_loss": F.cross_entropy}
    found = metaloss.meta_gradient(model, loss, [batch], batch, **given)
    right = metaloss.meta_gradient(model, loss.double(), [batch], batch, **given)
    for name, value in found.items():
        torch.testing.assert_close(value.double(), right[name], rtol=1e-3, atol=1e-8)
    assert any(value.any() for value in right.values())


class Single(nn.Module):
    def forward(self, x):
        if x.dtype is torch.float64:
            raise TypeError("single precision alone")
        return x


def test_rounding_in_single_precision_is_no_wrong_derivative():
    """Differences of slopes of 1e-7 are rounding with one of 80 seeds, such as this one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(54)
        model = nn.Sequential(Single(), nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3), Single())
        loss = MLPLoss(MLPLossConfig(hidden=[6]))
        batch = torch.randn(6, 5), torch.randint(3, (6,))
    given = {"inner": "sgd", "task_loss": F.cross_entropy}
    found = metaloss.meta_gradient(model, loss, [batch], batch, **given)
    assert any(value.any() for value in found.values())


def test_what_is_used_instead_is_said_once(caplog):
    model = nn.Sequential(nn.Linear(5, 8), Of(swish), nn.Linear(8, 3))
    learner = metaloss.Learner(model, MLPLoss(), task_loss=F.cross_entropy)
    batch = torch.randn(6, 5), torch.randint(3, (6,))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            learner.step(batch, batch)
    (record,) = caplog.records
    assert "forward-mode derivatives differ" in record.message
    assert "two reverse-mode passes" in record.message


def test_nothing_is_said_of_an_ordinary_model(caplog):
    model = nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)
    )
    learner = metaloss.Learner(model, MLPLoss(), task_loss=F.cross_entropy)
    batch = torch.randn(6, 5), torch.randint(3, (6,))
    before = copy.deepcopy(model.state_dict())
    with caplog.at_level(logging.WARNING):
        learner.step([batch, batch], batch)
    assert not caplog.records
    assert int(model[1].num_batches_tracked) == 2
    assert not torch.equal(before["0.weight"], model[0].weight)


def test_weights_that_a_forward_pass_changes_are_refused_where_the_loss_moves():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(9, 4, max_norm=1.0), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(torch.tanh(self.table(x)).mean(1))

    torch.manual_seed(0)
    model = Words()
    plain = copy.deepcopy(model)
    learner = metaloss.Learner(
        model, metaloss.losses.CrossEntropy(), task_loss=F.cross_entropy, inner=SGD(lr=0.5)
    )
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    for seed in range(4):
        torch.manual_seed(seed)
        batch = torch.randint(9, (12, 3)), torch.randint(3, (12,))
        learner.step(batch)
        optimizer.zero_grad()
        F.cross_entropy(plain(batch[0]), batch[1]).backward()
        optimizer.step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)
    moving = metaloss.Learner(Words(), MLPLoss(), task_loss=F.cross_entropy)
    with pytest.raises(UnsupportedError, match=r"changes its parameter 'table.weight' in its forw"):
        moving.step(batch, batch)
