"""Static: φ is never updated."""

from __future__ import annotations

from dataclasses import dataclass, field

from metaloss.contracts import Plan, Progress, Schedule, TrainOn
from metaloss.schedules.offline import check_counts, check_jury


@dataclass(frozen=True, kw_only=True)
class Static(Schedule):
    """Train with a fixed loss: a hand-made one, or a learned one with fixed φ.

    Raises:
        MetalossError: If an option is out of range.

    Example:
        >>> Static().plan(Progress(train=99), steps=100)
        Plan(phase='train', reset=False, unroll=1, meta_step=False)
        >>> Static().plan(Progress(train=100), steps=100) is None
        True
    """

    train_on: TrainOn = field(
        default=TrainOn["train"],
        metadata={"help": "rows to train on; rows with wrong labels are in train"},
    )
    jury: float = field(
        default=0.0,
        metadata={
            "help": "share of the trusted rows, in [0, 1), that move nothing and choose which "
            "moment's weights the run ends with; 0: none"
        },
    )
    early_stopping: int = field(
        default=0,
        metadata={"help": "stop after this many evaluations without a better one; 0: never"},
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_counts(self, ("early_stopping",), least=0)
        check_jury(self)

    def plan(self, progress: Progress, steps: int) -> Plan | None:
        """Return one plain step at a time."""
        return Plan(phase="train") if progress.train < steps else None

    def offline_total(self) -> int:
        """Return 0: there is no offline phase."""
        return 0

    def moves_in(self, phase: str) -> bool:
        """Return False: φ is never updated."""
        return False
