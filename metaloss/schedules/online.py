"""Online: φ is updated while the network trains."""

from __future__ import annotations

from dataclasses import dataclass, field

from metaloss.contracts import MetaBatch, Plan, Progress, Schedule, TrainOn, Verdict
from metaloss.errors import MetalossError, check_range
from metaloss.schedules.shared import check_judge_at, shared

STAGES = 5  # lengths of an unroll that grows: few, since each of them may be compiled


@dataclass(frozen=True, kw_only=True)
class Online(Schedule):
    """Update the loss while the network trains, as AdaLFL does.

    Every ``period`` steps, φ is updated along the meta-gradient through the last ``unroll`` steps.
    Windows do not overlap, so that φ is constant within a window and its meta-gradient is exact.
    With ``meta_batch=next``, the meta-batches of offline meta-steps are other training rows.

    Raises:
        MetalossError: If an option is out of range.

    Reference:
        Raymond, Chen, Xue & Zhang, "Meta-Learning Adaptive Loss Functions", TMLR 2025,
        algorithm 2. There, ``offline_steps=2500`` and ``start=random``.

    Example:
        >>> Online().plan(Progress(), steps=100)
        Plan(phase='train', reset=False, unroll=1, meta_step=True)
        >>> Online(period=4, unroll=2).plan(Progress(train=2), steps=100)
        Plan(phase='train', reset=False, unroll=2, meta_step=True)
    """

    period: int | None = field(
        default=None, metadata={"help": "inner steps from one meta-step to the next; null: unroll"}
    )
    unroll: int = field(
        default=1, metadata={"help": "inner steps that a meta-gradient differentiates through"}
    )
    between: int = field(
        default=0,
        metadata={
            "help": "unroll of short windows that fill a period before its own; 0: plain steps"
        },
    )
    unroll_end: int | None = field(
        default=None,
        metadata={
            "help": "unroll at the end of training, ≥ unroll: it grows in up to five geometric "
            "stages of equal length; null: constant"
        },
    )
    meta_batch: MetaBatch = shared("meta_batch")
    judge_rows: float = shared("judge_rows")
    judge_at: list[int] = shared("judge_at")
    judge_power: float = shared("judge_power")
    budget: float | None = field(
        default=None,
        metadata={
            "help": "mean time of a step ÷ that of a plain one, > 1: chooses rows, judge_rows, "
            "period and unroll (at most the given one) by measuring at the start"
        },
    )
    train_on: TrainOn = shared("train_on")
    jury: float = shared("jury")
    verdict: Verdict = field(
        default=Verdict.choose,
        metadata={
            "help": "what the jury may change while the run goes on: choose (nothing), freeze (φ), "
            "back (to the best moment, φ frozen), start (likewise, with φ of the start)"
        },
    )
    patience: int = field(
        default=5,
        metadata={
            "help": "evaluations without a better jury before such a verdict",
            "needs": (
                lambda own: own.verdict is not Verdict.choose,
                "schedule.verdict=freeze, back or start",
            ),
        },
    )
    freeze_after: float = field(
        default=1.0, metadata={"help": "share of training after which φ stays fixed, 0 to 1"}
    )
    offline_steps: int = field(
        default=0, metadata={"help": "offline meta-steps before training, each from new weights"}
    )
    offline_unroll: int = field(
        default=1,
        metadata={
            "help": "inner steps of an offline meta-step",
            "needs": (lambda own: own.offline_steps, "schedule.offline_steps, such as 1000"),
        },
    )

    def __post_init__(self) -> None:
        self.check_least(1, "unroll", "offline_unroll")
        self.check_least(0, "offline_steps")
        if self.period is not None and self.period < self.unroll:
            raise MetalossError(
                f"schedule.period={self.period} with unroll={self.unroll}: expected a period ≥ "
                "unroll, because windows do not overlap"
            )
        super().__post_init__()
        self._check_growth()
        self._check_between()
        offline = self.offline_unroll if self.offline_steps else 1
        check_judge_at(self, max(self.unroll, self.unroll_end or 1, offline))
        self._check_budget()
        within = 0 <= self.freeze_after <= 1
        check_range("schedule.freeze_after", self.freeze_after, within, "a share from 0 to 1")

    def _check_growth(self) -> None:
        end = self.unroll_end
        if end is None:
            return
        check_range("schedule.unroll_end", end, end >= self.unroll, f"a number ≥ {self.unroll}")
        if self.period is not None:
            raise MetalossError(
                f"schedule.unroll_end={end} with period={self.period}: expected no period, because "
                "windows follow one another while they grow"
            )

    def _check_between(self) -> None:
        most = (self.period or self.unroll) - self.unroll
        if self.between and not most:
            raise MetalossError(
                f"schedule.between={self.between} needs a period longer than the unroll, such as "
                "unroll=25 period=50 between=1"
            )
        within = 0 <= self.between <= most
        check_range("schedule.between", self.between, within, f"a number from 0 to {most}")

    def _check_budget(self) -> None:
        if self.budget is None:
            return
        check_range("schedule.budget", self.budget, self.budget > 1, "a number > 1, or null")
        others = {"unroll_end": self.unroll_end, "judge_at": self.judge_at, "between": self.between}
        for option in (name for name, value in others.items() if value):
            raise MetalossError(
                f"schedule.budget={self.budget:g} is not made for schedule.{option}: leave one out"
            )
        for option, default in (("period", None), ("judge_rows", 1.0)):
            if getattr(self, option) != default:
                raise MetalossError(
                    f"schedule.budget={self.budget:g} chooses schedule.{option}: leave it out"
                )

    def plan(self, progress: Progress, steps: int) -> Plan | None:
        """Return the offline meta-steps, then plain steps and windows with meta-steps."""
        if progress.offline < self.offline_steps:
            return Plan(phase="offline", reset=True, unroll=self.offline_unroll, meta_step=True)
        done = progress.train
        if done >= steps:
            return None
        reset = done == 0 and self.offline_steps > 0
        unroll = self._window_at(done, steps)
        frozen = done >= self.freeze_after * steps
        # A window that does not fit before the end of training becomes plain steps.
        if unroll and not frozen and done + unroll <= steps:
            return Plan(phase="train", reset=reset, unroll=unroll, meta_step=True)
        return Plan(phase="train", reset=reset)

    def _window_at(self, done: int, steps: int) -> int:
        """Return the unroll of the window that begins after some steps; 0: none begins there."""
        if self.unroll_end is not None:
            # Windows that grow follow one another, wherever they begin.
            ratio, last = self.unroll_end / self.unroll, STAGES - 1
            stages = sorted({round(self.unroll * ratio ** (k / last)) for k in range(STAGES)})
            return stages[done * len(stages) // steps]
        period = self.period or self.unroll
        left = period - self.unroll - done % period
        if left == 0:
            return self.unroll
        return self.between if self.between <= left else 0

    def offline_total(self) -> int:
        """Return the number of offline meta-steps."""
        return self.offline_steps

    def moves_in(self, phase: str) -> bool:
        """Return True for the training phase, and for the offline phase if there is one."""
        return phase == "train" or self.offline_steps > 0
