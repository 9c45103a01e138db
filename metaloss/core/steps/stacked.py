"""Segments of many runs that differ only in their seed, as one vectorised program."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from metaloss.contracts import Plan, Progress
from metaloss.core.batches.stacked import StackedStream
from metaloss.core.steps.advance import Advance, window
from metaloss.core.steps.state import TrainState
from metaloss.inner.stacked import StackedProblem, member, stack
from metaloss.types import Window


class StackedAdvance:
    """``(states, plan, progress) -> states`` for many members at once; see `Advance`.

    With ``tried``, this is only a test, without compilation.
    """

    def __init__(self, members: Sequence[Advance], *, tried: bool = False) -> None:
        self._members = list(members)
        self._rows = [one.rows for one in members]
        first = members[0]
        step = first.step.plain if tried else first.step
        self._step = step.on(StackedProblem.of(step.plain.problem))
        self._streams = {
            purpose: StackedStream([member.streams[purpose] for member in members])
            for purpose in first.streams
        }

    @property
    def compile_seconds(self) -> float:
        """Seconds that were spent on compiling so far."""
        return self._step.compile_seconds

    def joined(self, states: Sequence[TrainState]) -> TrainState:
        """Return the members' states as one."""
        # Members may differ in the number of rows. A ledger ends with rows that are never drawn.
        longest = max(self._rows)
        padded = [
            one._replace(ledger=pad(one.ledger, (0, 0, 0, longest - len(one.ledger))))
            if one.ledger is not None
            else one
            for one in states
        ]
        joined: TrainState = stack(padded)
        return joined

    def member(self, states: TrainState, index: int) -> TrainState:
        """Return the state of one member; its tensors are views."""
        own: TrainState = member(states, index)
        if own.ledger is not None:
            own = own._replace(ledger=own.ledger[: self._rows[index]])
        return own

    def __call__(self, states: TrainState, plan: Plan, progress: Progress) -> TrainState:
        """Return every member's state after the plan's steps."""
        if plan.reset:
            states = self.joined(
                [
                    one.begun(self.member(states, index), plan, progress)
                    for index, one in enumerate(self._members)
                ]
            )
        if (phi := [one.phi(progress) for one in self._members])[0] is not None:
            states = states._replace(phi=stack(phi))
        return self._step(states, self._window(plan, progress), plan)

    def _window(self, plan: Plan, progress: Progress) -> Window:
        first, count = self._members[0], len(self._members)
        places = first.places(plan, progress)
        shares = first.progress(places[:-1])
        found = window(places, self._streams, self._keys)
        return found._replace(progress=shares and tuple(one.expand(count) for one in shares))

    def _keys(self, purpose: str, number: int) -> Tensor:
        return torch.stack([one.key(purpose, number) for one in self._members])


def together(members: Sequence[Advance]) -> Advance | StackedAdvance:
    """Return the `Advance` of all runs together; of a single run, its own."""
    return members[0] if len(members) == 1 else StackedAdvance(members)
