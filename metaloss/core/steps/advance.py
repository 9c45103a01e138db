"""One segment of a run: the batches of a plan, and the step itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metaloss.contracts import Plan, Progress, Schedule
from metaloss.core.batches.stacked import StackedStream
from metaloss.core.batches.streams import BatchStream
from metaloss.core.steps import averages
from metaloss.core.steps.compiled import CompiledStep
from metaloss.core.steps.state import TrainState
from metaloss.core.steps.step import Step, waits
from metaloss.inner.keys import key_tensor
from metaloss.losses.loss_schedule import LossSchedule
from metaloss.types import InnerState, Tensors, Window


class Place(NamedTuple):
    """The place of a batch: the purpose of its stream, and its number."""

    purpose: str
    number: int


@dataclass(frozen=True, kw_only=True)
class Advance:
    """``(state, plan, progress) -> state``, without waiting for the device.

    Attributes:
        step: The function that changes the state.
        schedule: Determines the meta-batches.
        streams: Training batches by phase; meta-batches by ``"meta/" + phase``.
        fresh: New θ, buffers and optimizer state, by phase and number.
        seed: The run's seed.
        device: The device of all tensors.
        steps: The number of training steps of the run.
        replayed: The loss schedule that φ follows; None: φ follows none.
    """

    step: Step | CompiledStep
    schedule: Schedule
    streams: dict[str, BatchStream]
    fresh: Callable[[str, int], InnerState]
    seed: int
    device: torch.device
    steps: int = 1
    replayed: LossSchedule | None = None

    def __call__(self, state: TrainState, plan: Plan, progress: Progress) -> TrainState:
        """Return the state after the plan's steps. A bad segment changes only the guard."""
        state = self.begun(state, plan, progress)
        if (phi := self.phi(progress)) is not None:
            state = state._replace(phi=phi)
        return self.step(state, self.window(plan, progress), plan)

    @property
    def compile_seconds(self) -> float:
        """The time for compiling so far, in seconds."""
        return self.step.compile_seconds

    @property
    def rows(self) -> int:
        """The number of rows that training batches are drawn from."""
        return len(self.streams["train"].rows.targets)

    def joined(self, states: Sequence[TrainState]) -> TrainState:
        """Return the states of all runs as one; the state itself for a single run."""
        (state,) = states
        return state

    def member(self, states: TrainState, index: int) -> TrainState:
        """Return the state of one run from the result of :meth:`joined`."""
        return states

    def begun(self, state: TrainState, plan: Plan, progress: Progress) -> TrainState:
        """Return the state that the plan begins with, with new weights if it resets them."""
        if not plan.reset:
            return state
        state = state._replace(inner=self.fresh(plan.phase, _number(plan, progress)), pending=None)
        if plan.phase == "train" and state.rule is not None:
            state = state._replace(rule=self.step.plain.engine.rule_init(state.phi))
        if plan.phase == "train" and (means := state.averages) is not None:
            # The weights begin anew, and so does their average; φ goes on.
            new = averages.begun(self.step.plain.decays, state.inner, state.phi)
            assert new is not None
            new = new._replace(phi=means.phi, meta_steps=means.meta_steps)
            state = state._replace(averages=new)
        return state

    def phi(self, progress: Progress) -> Tensors | None:
        """Return φ for the next step, if it follows a loss schedule."""
        if self.replayed is None:
            return None
        return self.replayed.phi(progress.train / self.steps)

    def window(self, plan: Plan, progress: Progress) -> Window:
        """Return the batches and keys of the plan's steps, and the meta-batch and its key."""
        places = self.places(plan, progress)
        found = window(places, self.streams, self.key)
        return found._replace(progress=self.progress(places[:-1]))

    def progress(self, steps: Sequence[Place]) -> tuple[Tensor, ...] | None:
        """Return the share of the training steps before each step; None if no loss sees it.

        In the offline phase, the network begins anew with each meta-step, and so does the count.
        """
        if self.step.plain.problem.recall is None:
            return None
        first = steps[0].number if steps[0].purpose == "offline" else 0
        shares = ((place.number - first) / self.steps for place in steps)
        return tuple(torch.full((), share, device=self.device) for share in shares)

    def places(self, plan: Plan, progress: Progress) -> list[Place]:
        """Return the places of the plan's batches, followed by that of the meta-batch."""
        number = _number(plan, progress)
        first = number * plan.unroll if plan.phase == "offline" else number
        steps = [Place(plan.phase, k) for k in range(first, first + plan.unroll)]
        # Without a meta-batch, the last place is that of the first batch.
        has_meta_batch = plan.meta_step and not waits(self.schedule, plan)
        return [*steps, Place(f"meta/{plan.phase}", number) if has_meta_batch else steps[0]]

    def key(self, purpose: str, number: int) -> Tensor:
        """Return the key that determines the dropout masks of a batch."""
        return key_tensor(self.seed, f"dropout/{purpose}", number, device=self.device)


def window(
    places: Sequence[Place],
    streams: Mapping[str, BatchStream] | Mapping[str, StackedStream],
    key: Callable[[str, int], Tensor],
) -> Window:
    """Return the batches and keys at the places. The last one is the meta-batch."""
    batches, keys = [], []
    for place in places[:-1]:
        batches.append(streams[place.purpose][place.number])
        keys.append(key(*place))
    rows = tuple(streams[place.purpose].indices(place.number) for place in places[:-1])
    if places[-1] in places[:-1]:
        return Window(tuple(batches), tuple(keys), batches[0], keys[0], rows)
    purpose, number = places[-1]
    return Window(tuple(batches), tuple(keys), streams[purpose][number], key(purpose, number), rows)


def _number(plan: Plan, progress: Progress) -> int:
    return progress.offline if plan.phase == "offline" else progress.train
