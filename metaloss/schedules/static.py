"""φ never moves: a hand-made loss, or a learned one as it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from metaloss.contracts import Plan, Progress, Schedule, TrainOn
from metaloss.errors import MetalossError


@dataclass(frozen=True, kw_only=True)
class Static(Schedule):
    """Plain training with a fixed loss.

    Example:
        >>> Static().plan(Progress(train=99), steps=100)
        Plan(phase='train', reset=False, unroll=1, meta_step=False)
        >>> Static().plan(Progress(train=100), steps=100) is None
        True
    """

    train_on: TrainOn = field(
        default=TrainOn["train"], metadata={"help": "rows to train on; noisy ones are in train"}
    )
    early_stopping: int = field(
        default=0,
        metadata={"help": "evaluations without a better validation metric before stopping; 0 off"},
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.early_stopping < 0:
            raise MetalossError(
                f"schedule.early_stopping={self.early_stopping}: expected a number ≥ 0"
            )

    def plan(self, progress: Progress, steps: int) -> Plan | None:
        """Return one plain step at a time."""
        return Plan(phase="train") if progress.train < steps else None

    def offline_total(self) -> int:
        """Return 0: there is no offline phase."""
        return 0

    def moves_in(self, phase: str) -> bool:
        """Return False: φ never moves."""
        return False
