"""What an engine cannot differentiate it refuses, naming one that can: never a wrong number."""

import pytest
import torch
from torch import nn

from metaloss.errors import UnsupportedError
from metaloss.meta_optimizers.finite_difference import FiniteDifference
from metaloss.meta_optimizers.higher import Higher
from metaloss.meta_optimizers.mixed import Mixed
from metaloss.meta_optimizers.torchopt import TorchOpt

from ..operators import SineOnce, SineSetup


class With(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body, self.head = nn.Linear(6, 5), nn.Linear(5, 3)
        self.function = function

    def forward(self, x):
        return self.head(self.function(self.body(x)))


def segments(x):
    """The numbers themselves, by an operation without a double backward."""
    lengths = torch.ones(x.numel(), dtype=torch.long)
    return torch.segment_reduce(x.reshape(-1), "sum", lengths=lengths).reshape(x.shape)


@pytest.mark.parametrize("unroll", [1, 2])
@pytest.mark.parametrize("function", [SineSetup.apply, SineOnce.apply, lambda x: torch.cdist(x, x)])
def test_mixed_refuses_what_has_no_forward_mode(function, unroll, case):
    model = With(function)
    model.head = nn.LazyLinear(3)
    asked = case(model, "sgd", unroll)
    with pytest.raises(UnsupportedError, match=r"^meta_optimizer=mixed needs forward-mode "):
        asked.answer(Mixed())


@pytest.mark.parametrize("engine", [TorchOpt(), Higher()])
@pytest.mark.parametrize("function", [SineOnce.apply, segments])
def test_unrolls_refuse_what_has_no_double_backward(engine, function, case):
    name = type(engine).__name__.lower()
    with pytest.raises(UnsupportedError, match=f"^meta_optimizer={name} needs double backward"):
        case(With(function), "sgd", 2).answer(engine)


@pytest.mark.parametrize("unroll", [1, 3])
@pytest.mark.parametrize("function", [SineSetup.apply, SineOnce.apply])
def test_finite_difference_does_what_the_others_refuse(function, unroll, case, distance):
    got = case(With(function), "momentum", unroll).answer(FiniteDifference(epsilon=1e-4))
    same = case(With(torch.sin), "momentum", unroll).answer(Mixed())
    assert distance(got.gradient, same.gradient) < 1e-6


@pytest.mark.parametrize("engine", [TorchOpt(), Higher()])
def test_unrolls_need_no_forward_mode(engine, case, distance):
    got = case(With(SineSetup.apply), "momentum", 3).answer(engine)
    same = case(With(torch.sin), "momentum", 3).answer(Mixed())
    assert distance(got.gradient, same.gradient) < 1e-9


def test_other_errors_are_not_dressed_up(exact, case):
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            if self.head.weight.dtype == torch.float64:
                raise RuntimeError("the model's own mistake")
            return self.head(x)

    with pytest.raises(RuntimeError, match=r"^the model's own mistake"):
        case(Broken(), "sgd", 1).answer(exact)
