"""Offline: φ is learned first, on the first steps of many new networks, then frozen."""

from __future__ import annotations

from dataclasses import dataclass, field

from metaloss.contracts import MetaBatch, Plan, Progress
from metaloss.errors import MetalossError
from metaloss.schedules.fixed import FixedLoss
from metaloss.schedules.shared import check_judge_at, shared


@dataclass(frozen=True, kw_only=True)
class Offline(FixedLoss):
    """Learn the loss before training, as ML³ does.

    Each offline meta-step begins with new weights and takes ``unroll`` inner steps. After
    ``offline_steps`` of them, a network is trained from new weights while φ stays fixed.

    Raises:
        MetalossError: If an option is out of range.

    Reference:
        Bechtle et al., "Meta Learning via Learned Loss", ICPR 2021, algorithm 1.

    Example:
        >>> schedule = Offline(offline_steps=2, unroll=5)
        >>> schedule.plan(Progress(), steps=100)
        Plan(phase='offline', reset=True, unroll=5, meta_step=True)
        >>> schedule.plan(Progress(offline=2), steps=100)
        Plan(phase='train', reset=True, unroll=1, meta_step=False)
    """

    offline_steps: int = field(
        default=2500, metadata={"help": "meta-steps before training, each from new weights"}
    )
    unroll: int = field(
        default=10, metadata={"help": "inner steps that a meta-gradient differentiates through"}
    )
    meta_batch: MetaBatch = shared("meta_batch")
    judge_rows: float = shared("judge_rows")
    judge_at: list[int] = shared("judge_at")
    judge_power: float = shared("judge_power")
    jury: float = shared("jury")

    def __post_init__(self) -> None:
        self.check_least(1, "offline_steps", "unroll")
        super().__post_init__()
        check_judge_at(self, self.unroll)
        if self.meta_batch is MetaBatch.next:
            raise MetalossError(
                "schedule.meta_batch=next: expected validation or train, because θ is reset after "
                "every offline meta-step"
            )

    def plan(self, progress: Progress, steps: int) -> Plan | None:
        """Return the offline meta-steps, then plain steps from new weights."""
        if progress.offline < self.offline_steps:
            return Plan(phase="offline", reset=True, unroll=self.unroll, meta_step=True)
        return super().plan(progress, steps)

    def offline_total(self) -> int:
        """Return the number of offline meta-steps."""
        return self.offline_steps
