"""Offline: φ is learned first, on the first steps of many new networks, then frozen."""

from __future__ import annotations

from dataclasses import dataclass, field

from metaloss.contracts import MetaBatch, Plan, Progress, Schedule
from metaloss.errors import MetalossError, check_range


@dataclass(frozen=True, kw_only=True)
class Offline(Schedule):
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
    meta_batch: MetaBatch = field(
        default=MetaBatch.validation, metadata={"help": "rows that the meta-batches are drawn from"}
    )
    judge_rows: float = field(
        default=1.0,
        metadata={"help": "share of the rows of a meta-batch that the task loss is computed on"},
    )
    judge_at: list[int] = field(
        default_factory=list,
        metadata={
            "help": "inner steps of an unroll after which the task loss is computed too, e.g. [1]"
        },
    )
    judge_power: float = field(
        default=1.0,
        metadata={"help": "p ≥ 0: the task loss after k of K inner steps has the weight (K/k)^p"},
    )

    jury: float = field(
        default=0.0,
        metadata={
            "help": "share of the trusted rows, in [0, 1), that move nothing and choose which "
            "moment's weights the run ends with; 0: none"
        },
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_counts(self, ("offline_steps", "unroll"), least=1)
        check_judge_rows(self)
        check_jury(self)
        check_judge_at(self, self.unroll)
        check_meta_batch(self)

    def plan(self, progress: Progress, steps: int) -> Plan | None:
        """Return the offline meta-steps, then plain steps from new weights."""
        if progress.offline < self.offline_steps:
            return Plan(phase="offline", reset=True, unroll=self.unroll, meta_step=True)
        if progress.train >= steps:
            return None
        return Plan(phase="train", reset=progress.train == 0)

    def offline_total(self) -> int:
        """Return the number of offline meta-steps."""
        return self.offline_steps

    def moves_in(self, phase: str) -> bool:
        """Return whether the phase is the offline one."""
        return phase == "offline"


def check_counts(schedule: Schedule, options: tuple[str, ...], *, least: int) -> None:
    """Raise if one of the options is below ``least``."""
    for option in options:
        value = getattr(schedule, option)
        check_range(f"schedule.{option}", value, value >= least, f"a number ≥ {least}")


def check_jury(schedule: Schedule) -> None:
    """Raise if the jury's share of the trusted rows is out of range."""
    check_range("schedule.jury", schedule.jury, 0 <= schedule.jury < 1, "a number in [0, 1)")


def check_judge_rows(schedule: Schedule) -> None:
    """Raise if the share of the judging rows is none."""
    share = schedule.judge_rows
    check_range("schedule.judge_rows", share, 0 < share <= 1, "a number in (0, 1]")


def check_judge_at(schedule: Schedule, longest: int) -> None:
    """Raise if an earlier task loss is not within the longest unroll, or is given twice."""
    places, power = list(schedule.judge_at), schedule.judge_power
    if places and longest == 1:
        raise MetalossError(
            f"schedule.judge_at={places} with unroll=1: expected a longer unroll, such as unroll=25"
        )
    holds = all(1 <= place < longest for place in places) and len({*places}) == len(places)
    check_range(
        "schedule.judge_at", places, holds, f"different inner steps from 1 to {longest - 1}"
    )
    check_range("schedule.judge_power", power, power >= 0, "a number ≥ 0")


def check_meta_batch(schedule: Schedule) -> None:
    """Raise if the meta-batch is the next training batch, which an offline meta-step has not."""
    if schedule.meta_batch is MetaBatch.next:
        raise MetalossError(
            "schedule.meta_batch=next: expected validation or train, because θ is reset after "
            "every offline meta-step"
        )
