"""The public function: the same numbers, nothing changed, errors that help."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metaloss
from metaloss.errors import MetalossError
from metaloss.inner import SGD
from metaloss.losses import MSE, MLPLoss
from metaloss.losses.mlp import MLPLossConfig
from metaloss.meta_optimizers.finite_difference import FiniteDifference
from metaloss.meta_optimizers.higher import Higher


@pytest.fixture
def asked():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.2), nn.Linear(5, 3)
        ).double()
        loss = MLPLoss().double()
        batches = [
            (torch.randn(8, 4, dtype=torch.float64), torch.randint(3, (8,))) for _ in range(3)
        ]
    return {
        "model": model,
        "loss": loss,
        "train_batches": batches[:2],
        "meta_batch": batches[2],
        "inner": SGD(lr=0.1, momentum=0.9),
        "task_loss": F.cross_entropy,
    }


def gradient(asked, **changes):
    given = {**asked, **changes}
    places = [given.pop(k) for k in ("model", "loss", "train_batches", "meta_batch")]
    return metaloss.meta_gradient(*places, **given)


@pytest.mark.parametrize("engine", ["torchopt", "higher", Higher(lr=1.0)])
def test_every_exact_engine_gives_the_same(asked, engine, distance):
    assert distance(gradient(asked, engine=engine), gradient(asked)) < 1e-9


def test_finite_difference_comes_close(asked, distance):
    close = gradient(asked, engine=FiniteDifference(epsilon=1e-4))
    assert distance(close, gradient(asked)) < 1e-5


def test_one_tensor_for_each_parameter_of_the_loss(asked):
    shapes = {name: value.shape for name, value in gradient(asked).items()}
    assert shapes == {name: value.shape for name, value in asked["loss"].named_parameters()}


def test_it_is_a_descent_direction(asked):
    """A little way along −gradient the same question has a smaller task loss."""
    slope = gradient(asked)

    def task_loss(scale):
        seen = []
        loss = copy.deepcopy(asked["loss"])
        with torch.no_grad():
            for name, value in loss.named_parameters():
                value -= scale * slope[name]

        def spy(outputs, targets):
            seen.append(F.cross_entropy(outputs, targets))
            return seen[-1]

        gradient(asked, loss=loss, task_loss=spy)
        return float(seen[-1].detach())

    size = sum(float((value**2).sum()) for value in slope.values())
    assert size > 1e-8
    drop = (task_loss(-0.01) - task_loss(0.01)) / 0.02
    assert drop == pytest.approx(size, rel=1e-3)


@pytest.mark.parametrize("engine", ["mixed", "torchopt", "higher", "finite_difference"])
def test_nothing_is_changed(asked, engine):
    before = copy.deepcopy([asked["model"].state_dict(), asked["loss"].state_dict()])
    random_state = torch.get_rng_state()
    gradient(asked, engine=engine)
    after = [asked["model"].state_dict(), asked["loss"].state_dict()]
    for old, new in zip(before, after, strict=True):
        assert all(torch.equal(old[name], new[name]) for name in old)
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(p.grad is None for m in ("model", "loss") for p in asked[m].parameters())
    assert asked["model"].training


def test_answers_are_repeated(asked):
    first, second = gradient(asked), gradient(asked)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_any_module_serves_as_a_loss(asked):
    """No base class is needed: parameters and a call are enough."""

    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, outputs, targets):
            rows = self.weights[targets]
            return (rows * F.cross_entropy(outputs, targets, reduction="none")).sum() / rows.sum()

    result = gradient(asked, loss=Weighted())
    assert list(result) == ["weights"]
    assert result["weights"].norm() > 1e-4
    # The weighted mean does not feel the size of the weights: Euler's theorem.
    assert abs(result["weights"].sum()) < 1e-12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_batches": []}, r"train_batches is empty: expected one or more"),
        ({"train_batches": [1]}, r"train_batches is a int: expected \(inputs, targets\)"),
        (
            {"train_batches": (torch.zeros(1), torch.zeros(1))},
            r"train_batches is a Tensor: expected \(inputs, targets\)",
        ),
        ({"meta_batch": torch.zeros(3)}, r"meta_batch is a Tensor: expected"),
        ({"loss": MSE(link="identity")}, r"the loss MSE has no parameters to learn"),
        (
            {"loss": MLPLoss(MLPLossConfig(inputs=["target", "prediction", "memory"]))},
            r"the loss sees memory of each training row, which meta_gradient\(\) does not keep",
        ),
        ({"loss": None}, r"loss is a NoneType: expected a torch.nn.Module"),
        ({"task_loss": None}, r"task_loss is a NoneType: expected a function of raw outputs"),
        ({"model": nn.ReLU()}, r"the model has no parameters that require a gradient"),
        ({"inner": "sdg"}, r"unknown inner 'sdg': did you mean 'sgd'\?"),
        ({"inner": torch.optim.SGD}, r"inner is a type: expected InnerOptimizer, such as SGD"),
        ({"engine": "mixd"}, r"unknown meta_optimizer 'mixd': did you mean 'mixed'\?"),
        ({"engine": SGD()}, r"engine is a SGD: expected GradientMetaOptimizer, such as Mixed\(\)"),
    ],
)
def test_errors_say_what_to_do(asked, changes, message):
    with pytest.raises(MetalossError, match=message):
        gradient(asked, **changes)
