"""One segment of a run: which rows a plan's steps see, and the step itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from metaloss.contracts import Plan, Progress, Schedule
from metaloss.core.batches import BatchStream
from metaloss.core.state import TrainState
from metaloss.core.step import Step, waits
from metaloss.inner.keys import key_tensor
from metaloss.types import InnerState, Window


@dataclass(frozen=True, kw_only=True)
class Advance:
    """``(state, plan, progress) -> state``, without a host sync.

    Attributes:
        step: What is done to the state.
        schedule: Where the meta-batches come from.
        streams: Training batches by phase, meta-batches as ``"meta/" + phase``.
        fresh: Fresh θ, buffers and optimizer state, by phase and number.
        seed: The run's seed.
        device: Where everything lives.
    """

    step: Step
    schedule: Schedule
    streams: dict[str, BatchStream]
    fresh: Callable[[str, int], InnerState]
    seed: int
    device: torch.device

    def __call__(self, state: TrainState, plan: Plan, progress: Progress) -> TrainState:
        """Return the state after the plan's steps; a bad segment changes nothing but the guard."""
        return self.step(self.begun(state, plan, progress), self.window(plan, progress), plan)

    def begun(self, state: TrainState, plan: Plan, progress: Progress) -> TrainState:
        """Return the state that the plan begins with: fresh weights where it says so."""
        if not plan.reset:
            return state
        state = state._replace(inner=self.fresh(plan.phase, _number(plan, progress)), pending=None)
        if plan.phase == "train" and state.outer is not None:
            state = state._replace(outer=self.step.engine.outer_init(state.phi))
        return state

    def window(self, plan: Plan, progress: Progress) -> Window:
        """Return the batches and keys of the plan's steps, and those that judge them."""
        number = _number(plan, progress)
        first = number * plan.unroll if plan.phase == "offline" else number
        numbers = range(first, first + plan.unroll)
        batches = tuple(self.streams[plan.phase][k] for k in numbers)
        keys = tuple(self._key(plan.phase, k) for k in numbers)
        if not plan.meta_step or waits(self.schedule, plan):
            return Window(batches, keys, batches[0], keys[0])
        meta = f"meta/{plan.phase}"
        return Window(batches, keys, self.streams[meta][number], self._key(meta, number))

    def _key(self, purpose: str, number: int) -> Tensor:
        return key_tensor(self.seed, f"dropout/{purpose}", number, device=self.device)


def _number(plan: Plan, progress: Progress) -> int:
    return progress.offline if plan.phase == "offline" else progress.train
