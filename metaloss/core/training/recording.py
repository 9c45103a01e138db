"""Records φ over the course of training, for ``schedule=replay``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from metaloss.contracts import MetaBatch, Plan, Progress, Schedule
from metaloss.core.parts.replayed import LARGEST
from metaloss.losses.base import LearnedLoss
from metaloss.losses.export import family_of
from metaloss.losses.loss_schedule import pack_schedule
from metaloss.types import Tensors


class Recording:
    """φ at evenly spaced training steps: that under which a step was taken.

    Args:
        points: The number of parts of training at whose beginnings φ is recorded; 0: never.
        steps: The number of training steps. If there are fewer than ``points``, φ is recorded at
            every step.
        schedule: The schedule of the run. If φ does not move in training, nothing is recorded.
        numbers: How many numbers φ has. If there are more than `LARGEST`, nothing is recorded.

    Example:
        >>> from metaloss.schedules import Online
        >>> recording = Recording(2, 10, Online())
        >>> plan, phi = Plan(phase="train"), {"scale": torch.ones(())}
        >>> [s for s in range(10) if recording.due(plan, Progress(train=s))]
        [0, 5]
    """

    def __init__(self, points: int, steps: int, schedule: Schedule, numbers: int = 1) -> None:
        records = schedule.moves_in("train") and numbers <= LARGEST
        self._points = points if records else 0
        self._steps = steps
        # The meta-step before the inner steps: φ moves on the batch that they are then taken on.
        self._moves_first = schedule.meta_batch is MetaBatch.next
        self._places: list[int] = []
        self._phi: list[Tensors] = []

    def due(self, plan: Plan, progress: Progress) -> list[int]:
        """Return the steps of a plan at which φ is recorded."""
        if plan.phase != "train" or not self._points:
            return []
        first = progress.train
        return [step for step in range(first, first + plan.unroll) if self._is_due(step)]

    def note(self, plan: Plan, progress: Progress, before: Tensors, after: Tensors) -> None:
        """Record φ if it is due; ``progress`` is that before the plan was carried out."""
        for step in self.due(plan, progress):
            used = after if self._moves_first else before
            self._places.append(step)
            # A copy, as a program may write its next result into the same memory.
            self._phi.append({name: value.detach().clone() for name, value in used.items()})

    def packed(self) -> dict[str, Any] | None:
        """Return plain values for a checkpoint; None if there are none."""
        return {"places": self._places, "phi": self._stacked(self._phi)} if self._places else None

    def restore(self, content: Mapping[str, Any] | None) -> None:
        """Restore the result of :meth:`packed`."""
        content = content or {"places": [], "phi": {}}
        self._places = list(content["places"])
        self._phi = [
            {name: values[number] for name, values in content["phi"].items()}
            for number in range(len(self._places))
        ]

    def content(
        self, loss: LearnedLoss, phi: Tensors, step: int, provenance: Mapping[str, Any]
    ) -> bytes | None:
        """Return the content of the loss schedule's file; None if there is none.

        ``phi`` is φ after the last ``step``, which is not the average that the run ends with.
        """
        # A run that was begun by an older version may lack the beginning.
        if not self._places or self._places[0] != 0 or family_of(loss) is None:
            return None
        places = [place for place in self._places if place < step]
        stacked = self._stacked([*self._phi[: len(places)], phi])
        return pack_schedule(loss, [*places, step], self._steps, stacked, provenance)

    def _is_due(self, step: int) -> bool:
        return step == 0 or self._part(step) > self._part(step - 1)

    def _part(self, step: int) -> int:
        return step * self._points // self._steps

    @staticmethod
    def _stacked(phi: list[Tensors]) -> dict[str, Tensor]:
        return {name: torch.stack([one[name] for one in phi]) for name in phi[0]}
