"""Replay: the network trains under a loss schedule that another run has learned."""

from __future__ import annotations

from dataclasses import dataclass, field

from metaloss.contracts import TrainOn
from metaloss.errors import MetalossError, check_range
from metaloss.schedules.fixed import FixedLoss
from metaloss.schedules.online import Online
from metaloss.schedules.shared import shared


@dataclass(frozen=True, kw_only=True)
class Replay(FixedLoss):
    """Train under the φ(t) that an online run has recorded, with another network or task too.

    Step s of S is taken under φ at the same share of the recorded run, s / S. No meta-batches are
    needed, so that all rows train the network. The loss and its options are those of the recording.
    Without a source, the online run is trained first.

    Raises:
        MetalossError: If an option is out of range.

    Reference:
        The loss schedule is what AdaLFL learns: Raymond, Chen, Xue & Zhang, "Meta-Learning
        Adaptive Loss Functions", TMLR 2025. They train with it once, while it is learned.

    Example:
        >>> from metaloss.contracts import Progress
        >>> Replay(source="runs/first").plan(Progress(train=99), steps=100)
        Plan(phase='train', reset=False, unroll=1, meta_step=False)
    """

    source: str = field(
        default="",
        metadata={
            "help": "folder of a finished online run that recorded φ; empty: train one first"
        },
    )
    first: Online = field(
        default_factory=Online,
        metadata={"help": "without a source: options of the first pass, as of schedule=online"},
    )
    smoothing: float = field(
        default=0.1,
        metadata={"help": "width of a moving average over φ, as a share of training, 0 to 1"},
    )
    train_on: TrainOn = shared("train_on", default=TrainOn["train+validation"])
    jury: float = shared("jury")

    def __post_init__(self) -> None:
        super().__post_init__()
        within = 0 <= self.smoothing <= 1
        if self.source and self.first != Online():
            raise MetalossError(
                "schedule.first with schedule.source: that run is the first pass: leave out one"
            )
        check_range("schedule.smoothing", self.smoothing, within, "a share from 0 to 1")
