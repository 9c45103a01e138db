"""Learning rate schedules."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

import torch
from torch import Tensor

from metaloss.errors import check_range
from metaloss.inner.gradients import norm
from metaloss.inner.optimizers.base import InnerOptimizer
from metaloss.types import Tensors


class RateSchedule(Enum):
    """How a learning rate depends on the step.

    Attributes:
        constant: It does not.
        step: It is multiplied by ``decay`` after every ``step_size`` steps.
        multistep: It is multiplied by ``decay`` at each of the ``milestones``.
        cosine: It follows half a cosine from ``lr`` to ``lr_min`` in ``period`` steps, and rises
            again after them, as in torch.
        linear: It falls evenly from ``lr`` to ``lr_min`` in ``period`` steps, and stays there.
    """

    constant = "constant"
    step = "step"
    multistep = "multistep"
    cosine = "cosine"
    linear = "linear"


def clipped(grads: Tensors, largest: float) -> Tensors:
    """Return gradients that are scaled to a norm of at most ``largest``; 0: no limit.

    Example:
        >>> clipped({"w": torch.tensor([3.0, 4.0])}, 1.0)
        {'w': tensor([0.6000, 0.8000])}
    """
    if not largest or not grads:
        return grads
    # In single precision at least: a sum of squares soon overflows float16.
    wide = [g if g.dtype is torch.float64 else g.float() for g in grads.values()]
    scale = (largest / (norm(wide) + 1e-6)).clamp(max=1.0)
    return {name: (g * scale).to(g.dtype) for name, g in grads.items()}


def share_left(schedule: RateSchedule, step: Tensor, period: int) -> Tensor:
    """Return how much of the way to the minimum is left: 1 at the beginning, 0 after a period.

    Args:
        schedule: ``cosine`` or ``linear``.
        step: Steps taken, 0-d int64.
        period: Steps to the minimum. A cosine rises again after them, as torch.optim's does.

    Returns:
        A 0-d float64 tensor.
    """
    done = step.to(torch.float64)
    if schedule is RateSchedule.cosine:
        return (1 + torch.cos(math.pi * done / period)) / 2
    return (1 - done / period).clamp(min=0.0)


def _needs(*names: str) -> tuple[Callable[[Any], bool], str]:
    """Return that an option needs one of these schedules."""
    return lambda own: own.schedule.name in names, f"inner.schedule={' or '.join(names)}"


@dataclass(frozen=True, kw_only=True)
class Rated(InnerOptimizer):
    """An inner optimizer with a learning rate schedule, weight decay and gradient clipping.

    The rate is computed in float64 from the optimizer's step counter. The schedules equal
    ``StepLR``, ``MultiStepLR``, ``CosineAnnealingLR`` and ``LinearLR`` of ``torch.optim``, with one
    step for each training step.

    With ``clip``, the gradient in θ is multiplied by min(1, clip / (norm + 1e-6)) before anything
    else, as ``torch.nn.utils.clip_grad_norm_`` does; the norm is that of all parameters together.
    Meta-gradients go through this factor too.

    Raises:
        MetalossError: If an option is out of range.

    Example:
        >>> from metaloss.inner.optimizers.sgd import SGD
        >>> sgd = SGD(lr=0.5, schedule=RateSchedule.step, step_size=10, decay=0.1)
        >>> round(sgd.rate(torch.tensor(10)).item(), 6)
        0.05
    """

    lr: float = field(default=0.1, metadata={"help": "learning rate, > 0"})
    schedule: RateSchedule = field(
        default=RateSchedule.constant,
        metadata={
            "help": "how the rate depends on the step",
            "needs": (
                lambda own: own.milestones or own.schedule is not RateSchedule.multistep,
                "inner.milestones, such as [1000]",
            ),
        },
    )
    step_size: int = field(
        default=1000,
        metadata={
            "help": "steps from one drop to the next (schedule=step)",
            "needs": _needs("step"),
        },
    )
    milestones: list[int] = field(
        default_factory=list,
        metadata={"help": "steps of the drops (schedule=multistep)", "needs": _needs("multistep")},
    )
    decay: float = field(
        default=0.1,
        metadata={
            "help": "factor of a drop (schedule=step, multistep)",
            "needs": _needs("step", "multistep"),
        },
    )
    period: int = field(
        default=1000,
        metadata={
            "help": "steps to the minimum (schedule=cosine, linear)",
            "needs": _needs("cosine", "linear"),
        },
    )
    lr_min: float = field(
        default=0.0,
        metadata={
            "help": "rate at the minimum (schedule=cosine, linear)",
            "needs": _needs("cosine", "linear"),
        },
    )
    weight_decay: float = field(default=0.0, metadata={"help": "weight decay, ≥ 0"})
    bias_decay: bool = field(
        default=True,
        metadata={
            "help": "decay biases and norms too: parameters of at most one dimension",
            "needs": (lambda own: own.weight_decay, "inner.weight_decay"),
        },
    )
    clip: float = field(
        default=0.0, metadata={"help": "largest norm of the gradient, ≥ 0; 0: no clipping"}
    )

    def __post_init__(self) -> None:
        for option in ("lr", "step_size", "period"):
            value = getattr(self, option)
            check_range(f"inner.{option}", value, value > 0, "a positive number")
        for option in ("decay", "lr_min", "weight_decay", "clip"):
            value = getattr(self, option)
            check_range(f"inner.{option}", value, value >= 0, "a number ≥ 0")
        holds = all(mark >= 1 for mark in self.milestones)
        check_range("inner.milestones", self.milestones, holds, "steps ≥ 1")

    def rate(self, step: Tensor) -> Tensor:
        """Return the learning rate of step number ``step`` (0-d int64, from 0), 0-d float64."""
        lr: Any = self.lr
        if not isinstance(lr, Tensor):
            lr = torch.full((), lr, dtype=torch.float64, device=step.device)
        base: Tensor = lr
        if self.schedule is RateSchedule.step:
            return base * self.decay ** torch.div(step, self.step_size, rounding_mode="floor")
        if self.schedule is RateSchedule.multistep:
            passed = sum((step >= mark).to(torch.float64) for mark in self.milestones)
            return base * self.decay**passed
        if self.schedule is RateSchedule.constant:
            return base
        return self.lr_min + (base - self.lr_min) * share_left(self.schedule, step, self.period)

    def at(self, lr: Tensor) -> Self:
        """Return this optimizer with a tensor as ``lr``: 0-d, float64, on the device of θ.

        A compiled program then has the rate as an input, so that it can change between steps.
        """
        found = copy.copy(self)
        object.__setattr__(found, "lr", lr)
        return found

    def clipped(self, grads: Tensors) -> Tensors:
        """Return the gradients, scaled to a norm of at most ``clip``."""
        return clipped(grads, self.clip)

    def decays(self, param: Tensor) -> bool:
        """Return whether weight decay applies to a parameter."""
        return self.weight_decay > 0 and (self.bias_decay or param.dim() > 1)

    def with_decay(self, grads: Tensors, params: Tensors) -> Tensors:
        """Return the gradients plus the weight decay, where it is part of the gradient."""
        return {
            name: g + self.weight_decay * params[name] if self.decays(params[name]) else g
            for name, g in grads.items()
        }
