"""How a learning rate changes over the run: constant, steps, milestones, cosine, linear."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor

from metaloss.errors import MetalossError
from metaloss.inner.optimizers.base import InnerOptimizer


class RateSchedule(Enum):
    """How a learning rate changes with the number of steps taken."""

    constant = "constant"
    step = "step"
    multistep = "multistep"
    cosine = "cosine"
    linear = "linear"


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


@dataclass(frozen=True, kw_only=True)
class Rated(InnerOptimizer):
    """An inner optimizer with a learning rate that may follow a schedule.

    The rate is a tensor computed from the optimizer's own step counter, in float64, so that it
    needs no host sync and a resumed run goes on where it was. Equal to ``torch.optim``'s
    ``StepLR``, ``MultiStepLR``, ``CosineAnnealingLR`` and ``LinearLR``, stepped once a training
    step.
    """

    lr: float = field(default=0.1, metadata={"help": "learning rate, > 0"})
    schedule: RateSchedule = field(
        default=RateSchedule.constant, metadata={"help": "how the rate changes over steps"}
    )
    step_size: int = field(default=1000, metadata={"help": "steps between drops (schedule=step)"})
    milestones: list[int] = field(
        default_factory=list, metadata={"help": "steps at which it drops (schedule=multistep)"}
    )
    decay: float = field(default=0.1, metadata={"help": "factor of a drop (step, multistep)"})
    period: int = field(default=1000, metadata={"help": "steps to the minimum (cosine, linear)"})
    lr_min: float = field(default=0.0, metadata={"help": "rate at the minimum (cosine, linear)"})
    weight_decay: float = field(default=0.0, metadata={"help": "≥ 0"})

    def __post_init__(self) -> None:
        """Check the ranges."""
        name = f"inner={type(self).__name__.lower()}"
        for option in ("lr", "step_size", "period"):
            if not getattr(self, option) > 0:
                raise MetalossError(
                    f"{name}: {option}={getattr(self, option)}: expected a positive number"
                )
        if not self.weight_decay >= 0:
            raise MetalossError(f"{name}: weight_decay={self.weight_decay}: expected a number ≥ 0")
        if any(mark < 1 for mark in self.milestones):
            raise MetalossError(f"{name}: milestones={self.milestones}: expected steps ≥ 1")

    def rate(self, step: Tensor) -> Tensor:
        """Return the learning rate of step number ``step`` (0-d int64, from 0), 0-d float64."""
        base = torch.full((), self.lr, dtype=torch.float64, device=step.device)
        if self.schedule is RateSchedule.step:
            return base * self.decay ** torch.div(step, self.step_size, rounding_mode="floor")
        if self.schedule is RateSchedule.multistep:
            passed = sum((step >= mark).to(torch.float64) for mark in self.milestones)
            return base * self.decay**passed
        if self.schedule is RateSchedule.constant:
            return base
        return self.lr_min + (base - self.lr_min) * share_left(self.schedule, step, self.period)
