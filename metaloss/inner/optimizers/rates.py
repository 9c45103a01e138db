"""Learning rate schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor

from metaloss.errors import check_range
from metaloss.inner.optimizers.base import InnerOptimizer


class RateSchedule(Enum):
    """How a learning rate depends on the step."""

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
    """An inner optimizer with a learning rate schedule.

    The rate is computed in float64 from the optimizer's step counter. The schedules equal
    ``StepLR``, ``MultiStepLR``, ``CosineAnnealingLR`` and ``LinearLR`` of ``torch.optim``, with one
    step for each training step.

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
        default=RateSchedule.constant, metadata={"help": "how the rate depends on the step"}
    )
    step_size: int = field(
        default=1000, metadata={"help": "steps from one drop to the next (schedule=step)"}
    )
    milestones: list[int] = field(
        default_factory=list, metadata={"help": "steps of the drops (schedule=multistep)"}
    )
    decay: float = field(
        default=0.1, metadata={"help": "factor of a drop (schedule=step, multistep)"}
    )
    period: int = field(
        default=1000, metadata={"help": "steps to the minimum (schedule=cosine, linear)"}
    )
    lr_min: float = field(
        default=0.0, metadata={"help": "rate at the minimum (schedule=cosine, linear)"}
    )
    weight_decay: float = field(default=0.0, metadata={"help": "weight decay, ≥ 0"})

    def __post_init__(self) -> None:
        """Check the ranges."""
        for option in ("lr", "step_size", "period"):
            value = getattr(self, option)
            check_range(f"inner.{option}", value, value > 0, "a positive number")
        check_range("inner.weight_decay", self.weight_decay, self.weight_decay >= 0, "a number ≥ 0")
        holds = all(mark >= 1 for mark in self.milestones)
        check_range("inner.milestones", self.milestones, holds, "steps ≥ 1")

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
