"""Tiny problems for engines, with reference results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaloss.contracts import InnerOptimizer
from metaloss.inner import SGD, Adam
from metaloss.inner.keys import key_tensor
from metaloss.inner.model.functional import FunctionalModel
from metaloss.inner.problem import InnerProblem
from metaloss.losses import MLPLoss
from metaloss.losses.base import phi_of
from metaloss.losses.mlp import MLPLossConfig
from metaloss.testing.base import draws
from metaloss.types import Batch, InnerState, Tensors, Window


@dataclass(frozen=True, kw_only=True)
class TinyProblem:
    """A tiny problem, with reference results by plain steps and finite differences."""

    name: str
    problem: InnerProblem
    phi: Tensors
    state: InnerState
    window: Window

    def plain(self, phi: Tensors) -> tuple[InnerState, Tensor, Tensor]:
        """Return the state after plain inner steps, and learned and task losses (K,)."""
        state, inner, task = self.state, [], []
        for batch, key in zip(self.window.batches, self.window.keys, strict=True):
            stepped = self.problem.step(phi, state, batch, key)
            state = stepped.state
            inner.append(stepped.loss)
            task.append(stepped.task)
        return state, torch.stack(inner), torch.stack(task)

    def meta_task(self, phi: Tensors) -> Tensor:
        """Return the task loss on the meta-batch after the steps."""
        state, _, _ = self.plain(phi)
        return self.problem.task_gradient(state, self.window.meta_batch, self.window.meta_key)[1]

    def differences(self, epsilon: float = 1e-5) -> Tensors:
        """Return the derivative of `meta_task` in φ by central differences."""
        gradient = {name: torch.zeros_like(value) for name, value in self.phi.items()}
        for name, value in self.phi.items():
            for place in range(value.numel()):
                step = torch.zeros_like(value)
                step.view(-1)[place] = epsilon
                ahead = self.meta_task({**self.phi, name: value + step})
                behind = self.meta_task({**self.phi, name: value - step})
                gradient[name].view(-1)[place] = (ahead - behind) / (2 * epsilon)
        return gradient


def tiny_problems(model: nn.Module | None = None) -> Iterator[TinyProblem]:
    """Yield problems with several inner optimizers and unrolls; by default with a small network."""
    optimizers: dict[str, InnerOptimizer] = {
        "SGD with momentum": SGD(lr=0.2, momentum=0.9, weight_decay=0.01),
        "Adam": Adam(lr=0.1),
    }
    for name, optimizer in optimizers.items():
        for unroll in (1, 3):
            yield _problem(f"{name}, unroll {unroll}", optimizer, unroll, model or _network())


def _problem(name: str, optimizer: InnerOptimizer, unroll: int, model: nn.Module) -> TinyProblem:
    functional = FunctionalModel(model.double().train())
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        loss = MLPLoss(MLPLossConfig(hidden=[3])).double()
    params, buffers = functional.state()
    draw = draws(0)

    def batch() -> Batch:
        inputs = torch.randn(6, 4, generator=draw, dtype=torch.float64)
        return Batch(inputs, torch.randint(3, (6,), generator=draw))

    return TinyProblem(
        name=name,
        problem=InnerProblem(
            model=functional, loss=loss, task_loss=F.cross_entropy, optimizer=optimizer
        ),
        phi=phi_of(loss),
        state=InnerState(params, buffers, optimizer.init(params)),
        window=Window(
            batches=tuple(batch() for _ in range(unroll)),
            keys=tuple(key_tensor(0, "checks", k, device="cpu") for k in range(unroll)),
            meta_batch=batch(),
            meta_key=key_tensor(0, "checks/meta", device="cpu"),
        ),
    )


def _network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        return nn.Sequential(
            nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.2), nn.Linear(5, 3)
        )


class WithIdle(nn.Module):
    """A loss with a parameter that it does not use."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        self.idle = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the wrapped loss."""
        return self.loss(outputs, target)


class _OnceDifferentiable(torch.autograd.Function):
    """tanh with a backward pass that cannot be differentiated, and no forward mode."""

    @staticmethod
    def forward(ctx, x):
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        return grad * (1 - y * y)


class _Stubborn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _OnceDifferentiable.apply(x)


def once_differentiable() -> nn.Module:
    """Return a network that has first derivatives in reverse mode and no others."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 5), _Stubborn(), nn.Linear(5, 3))
