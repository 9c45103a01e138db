"""Static: φ is never updated."""

from __future__ import annotations

from dataclasses import dataclass, field

from metaloss.contracts import TrainOn
from metaloss.schedules.fixed import FixedLoss
from metaloss.schedules.shared import shared


@dataclass(frozen=True, kw_only=True)
class Static(FixedLoss):
    """Train with a fixed loss: a hand-made one, or a learned one with fixed φ.

    Raises:
        MetalossError: If an option is out of range.

    Example:
        >>> from metaloss.contracts import Progress
        >>> Static().plan(Progress(train=99), steps=100)
        Plan(phase='train', reset=False, unroll=1, meta_step=False)
    """

    train_on: TrainOn = shared("train_on")
    jury: float = shared("jury")
    early_stopping: int = field(
        default=0,
        metadata={"help": "stop after this many evaluations without a better one; 0: never"},
    )
