"""When θ is reset, how long the unroll is, when φ moves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come: finished offline meta-steps and finished training steps."""

    offline: int = 0
    train: int = 0

    def after(self, plan: Plan) -> Progress:
        """Return how far a run has come once a plan is done."""
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
        reset: Begin with fresh θ, buffers and optimizer state.
        unroll: The number of inner steps to take.
        meta_step: Whether φ moves after them, from the gradient through exactly these steps.
    """

    phase: str
    reset: bool = False
    unroll: int = 1
    meta_step: bool = False


class MetaBatch(Enum):
    """Where the rows that judge φ come from; ``next``: the next training batch."""

    validation = "validation"
    train = "train"
    next = "next"


# The functional form, since one of the names in the config is no Python identifier.
TrainOn = Enum(
    "TrainOn",
    {"train": "train", "validation": "validation", "train+validation": "train+validation"},
)
TrainOn.__doc__ = "Which rows the training batches come from."


class Schedule(ABC):
    """When θ is reset, how long the unroll is, when φ moves. Decides only; sees no tensor.

    Attributes:
        meta_batch: Where the meta-batches come from.
        train_on: Which rows the training batches come from.
        early_stopping: Evaluations without a better validation metric after which training ends
            and the best weights are restored; 0 never.
    """

    meta_batch: MetaBatch = MetaBatch.validation
    train_on: TrainOn = TrainOn["train"]
    early_stopping: int = 0

    @abstractmethod
    def plan(self, progress: Progress, steps: int) -> Plan | None:
        """Return what comes next in a run of ``steps`` training steps, None at the end.

        A pure function of its arguments: a resumed run is planned like the uninterrupted one.
        """

    @property
    def begins(self) -> Progress:
        """Where the first plan begins."""
        return Progress()

    def plans(self, steps: int) -> Iterator[Plan]:
        """Yield all that comes in a run of ``steps`` training steps."""
        progress = self.begins
        while (plan := self.plan(progress, steps)) is not None:
            yield plan
            progress = progress.after(plan)

    @abstractmethod
    def offline_total(self) -> int:
        """Return the number of offline meta-steps before training."""

    @abstractmethod
    def moves_in(self, phase: str) -> bool:
        """Return whether φ moves in a phase, ``"offline"`` or ``"train"``."""

    @property
    def learns(self) -> bool:
        """Whether φ ever moves."""
        return self.moves_in("offline") or self.moves_in("train")
