"""The contract of a schedule: when θ is reset, how long the unroll is, when φ is updated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from metaloss.errors import MetalossError, check_range
from metaloss.options import Options


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        offline: Finished meta-steps of the offline phase.
        train: Finished training steps.

    Example:
        >>> Progress(train=3).after(Plan(phase="train", unroll=2))
        Progress(offline=0, train=5)
    """

    offline: int = 0
    train: int = 0

    def after(self, plan: Plan) -> Progress:
        """Return the progress once a plan is carried out."""
        if plan.phase == "offline":
            return Progress(offline=self.offline + 1, train=self.train)
        return Progress(offline=self.offline, train=self.train + plan.unroll)

    def steps_in(self, phase: str) -> int:
        """Return the steps done in a phase, ``"offline"`` or ``"train"``."""
        return self.offline if phase == "offline" else self.train


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the trainer does next.

    Attributes:
        phase: ``"offline"`` or ``"train"``.
        reset: Whether θ, the buffers and the optimizer's state are initialised anew first.
        unroll: K ≥ 1, the number of inner steps.
        meta_step: Whether φ is updated after them, along the meta-gradient through these K steps.
    """

    phase: str
    reset: bool = False
    unroll: int = 1
    meta_step: bool = False


class MetaBatch(Enum):
    """Which rows the meta-batches are drawn from.

    Attributes:
        validation: The validation rows.
        train: The training rows.
        next: None are drawn: each meta-batch is the next training batch.
    """

    validation = "validation"
    train = "train"
    next = "next"


# The functional form, because "train+validation" is not a Python identifier.
TrainOn = Enum(
    "TrainOn",
    {"train": "train", "validation": "validation", "train+validation": "train+validation"},
)
TrainOn.__doc__ = """Which rows the training batches are drawn from.

Attributes:
    train: The training rows.
    validation: The validation rows.
    train+validation: Both; in Python ``TrainOn["train+validation"]``.
"""


class Verdict(Enum):
    """What the jury may change while a run goes on.

    Attributes:
        choose: Nothing.
        freeze: φ stays as it is.
        back: The run goes back to its best moment, and φ stays as it was there.
        start: The run goes back to its best moment, with the φ of the start.
    """

    choose = "choose"
    freeze = "freeze"
    back = "back"
    start = "start"


class Schedule(Options, ABC, group="schedule"):
    """When θ is reset, how long the unroll is, when φ is updated.

    A schedule only decides. It sees no tensor.

    Attributes:
        meta_batch: Which rows the meta-batches are drawn from.
        judge_rows: The share of the rows of a meta-batch that the task loss is computed on.
        judge_at: Inner steps of an unroll after which the task loss is computed too.
        judge_power: p ≥ 0: the factor of the task loss after k of K inner steps is (K / k)^p.
        train_on: Which rows the training batches are drawn from.
        jury: The share of the trusted rows that move nothing, and choose the weights at the end.
        verdict: What the jury may change while the run goes on.
        patience: The number of evaluations without a better jury before that.
        early_stopping: Evaluations without a better validation metric after which training ends
            and the best weights are restored; 0: never.

    Example:
        >>> class Always(Schedule):
        ...     def plan(self, progress, steps):
        ...         done = progress.train >= steps
        ...         return None if done else Plan(phase="train", meta_step=True)
        ...     def offline_total(self):
        ...         return 0
        ...     def moves_in(self, phase):
        ...         return phase == "train"
        >>> len(list(Always().plans(steps=3))), Always().learns
        (3, True)
    """

    meta_batch: MetaBatch = MetaBatch.validation
    judge_rows: float = 1.0
    judge_at: Sequence[int] = ()
    judge_power: float = 1.0
    train_on: TrainOn = TrainOn["train"]
    jury: float = 0.0
    verdict: Verdict = Verdict.choose
    patience: int = 5
    early_stopping: int = 0

    def __post_init__(self) -> None:
        """Check the ranges of the options above; a dataclass calls this when it is made."""
        rows, jury, verdict = self.judge_rows, self.jury, self.verdict
        check_range("schedule.judge_rows", rows, 0 < rows <= 1, "a number in (0, 1]")
        check_range("schedule.jury", jury, 0 <= jury < 1, "a number in [0, 1)")
        self.check_least(1, "patience")
        self.check_least(0, "early_stopping")
        if verdict is not Verdict.choose and not jury:
            raise MetalossError(
                f"schedule.verdict={verdict.name} needs a jury: expected schedule.jury too, such "
                "as schedule.jury=0.5"
            )

    def check_least(self, least: int, *options: str) -> None:
        """Raise if one of the options is below ``least``."""
        for option in options:
            value = getattr(self, option)
            check_range(f"schedule.{option}", value, value >= least, f"a number ≥ {least}")

    @abstractmethod
    def plan(self, progress: Progress, steps: int) -> Plan | None:
        """Return what a run of ``steps`` training steps does next; None at the end.

        The result depends on the arguments only, so that a resumed run follows the same plans as an
        uninterrupted one.
        """

    @property
    def begins(self) -> Progress:
        """The progress before the first plan."""
        return Progress()

    def plans(self, steps: int) -> Iterator[Plan]:
        """Yield all plans of a run of ``steps`` training steps."""
        progress = self.begins
        while (plan := self.plan(progress, steps)) is not None:
            yield plan
            progress = progress.after(plan)

    def judged(self, unroll: int) -> list[tuple[int, float]]:
        """Return (k, weight) of each earlier task loss of an unroll of K steps; k < K.

        The meta-gradient is that of T(θ_K) + Σ weight · T(θ_k). That of T(θ_k) is a sum of k terms,
        one for each step, so that with ``judge_power=1`` a short horizon weighs as much as K.
        """
        return [(k, (unroll / k) ** self.judge_power) for k in self.judge_at if k < unroll]

    @abstractmethod
    def offline_total(self) -> int:
        """Return the number of offline meta-steps before training."""

    @abstractmethod
    def moves_in(self, phase: str) -> bool:
        """Return whether φ is updated in a phase, ``"offline"`` or ``"train"``."""

    @property
    def learns(self) -> bool:
        """Whether φ is updated in any phase."""
        return self.moves_in("offline") or self.moves_in("train")
