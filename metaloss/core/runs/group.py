"""Many runs that differ in their seed alone, trained as one vectorised program."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from metaloss.contracts import Plan, Progress
from metaloss.core.batches.stacked import StackedStream
from metaloss.core.parts.setup import Setup
from metaloss.core.steps.advance import Advance, window
from metaloss.core.steps.state import TrainState
from metaloss.core.training.trainer import Trainer
from metaloss.errors import UnsupportedError
from metaloss.inner.stacked import StackedProblem, member, stack
from metaloss.types import Tensors, Window


class StackedAdvance:
    """``(states, plan, progress) -> states`` for many members at once; see `Advance`.

    Args:
        members: Each run's own: their streams, fresh weights and keys.
        tried: Only to see whether it can be done: nothing is compiled.
    """

    def __init__(self, members: Sequence[Advance], *, tried: bool = False) -> None:
        self._members = list(members)
        first = members[0]
        step = first.step.eager() if tried else first.step
        self._step = step.on(StackedProblem.of(step.problem))
        self._streams = {
            purpose: StackedStream([member.streams[purpose] for member in members])
            for purpose in first.streams
        }

    @property
    def compile_seconds(self) -> float:
        """Seconds that were spent on compiling so far."""
        return self._step.compile_seconds

    def __call__(self, states: TrainState, plan: Plan, progress: Progress) -> TrainState:
        """Return every member's state after the plan's steps."""
        if plan.reset:
            begun = [
                one.begun(member(states, index), plan, progress)
                for index, one in enumerate(self._members)
            ]
            states = stack(begun)
        return self._step(states, self._window(plan, progress), plan)

    def _window(self, plan: Plan, progress: Progress) -> Window:
        return window(self._members[0].places(plan, progress), self._streams, self._keys)

    def _keys(self, purpose: str, number: int) -> Tensor:
        return torch.stack([one.key(purpose, number) for one in self._members])


def check_stackable(setups: Sequence[Setup]) -> None:
    """Raise unless the runs can be one program: tried on steps that are thrown away.

    Raises:
        UnsupportedError: If an engine, a model or a task does not allow it; it says why.
    """
    first, count = setups[0], len(setups)
    alone = f"seeds={count}: %s: train the seeds one at a time"
    if first.search is not None:
        raise UnsupportedError(
            alone % f"meta_optimizer={first.config.meta_optimizer.name} is a search of its own"
        )
    if first.schedule.learns and not first.engine.stacks:
        raise UnsupportedError(
            alone % f"meta_optimizer={first.config.meta_optimizer.name} takes one run at a time "
            "(mixed and finite_difference take many)"
        )
    if len({(setup.task.input_shape, setup.task.outputs) for setup in setups}) > 1:
        raise UnsupportedError(
            alone % "their rows differ in shape, since each has training rows of its own "
            "(task.split_seed=0 gives all the same)"
        )
    for setup in setups[1:]:
        for own, other in zip(_constants(first), _constants(setup), strict=True):
            if not torch.equal(own, other):
                raise UnsupportedError(
                    alone % "the model or the loss has fixed values that differ from seed to seed"
                )
    # One forward pass of its own: it is there that foreign randomness shows.
    params, buffers = first.problem.model.state()
    first.problem.predict(
        params, buffers, first.advance.streams["train"][0], first.advance.key("probe", 0)
    )
    if first.problem.model.foreign_randomness:
        raise UnsupportedError(alone % "the model draws random numbers outside of nn.Dropout")
    states = stack([setup.state(setup.advance.fresh("train", 0), _phi(setup)) for setup in setups])
    advance = StackedAdvance([setup.advance for setup in setups], tried=True)
    try:
        for plan, progress in _telling(first):
            states = advance(states, plan, progress)
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        raise UnsupportedError(
            alone % f"not every operation can be vectorised ({reason})"
        ) from error


def _telling(setup: Setup) -> Iterator[tuple[Plan, Progress]]:
    """Yield steps that do all that a run's steps do.

    Those are the very first, and in each phase the first that φ moves after and the next one, which
    may be what judges it.
    """
    schedule, progress = setup.schedule, setup.schedule.begins
    begun: set[str] = set()
    last: tuple[bool, str] | None = None
    for plan in schedule.plans(setup.config.steps):
        begins = plan.meta_step and plan.phase not in begun
        follows = last == (True, plan.phase)
        if begins or follows or last is None:
            yield plan, progress
        if plan.phase == "train" and (follows or not schedule.moves_in("train")):
            return
        if begins:
            begun.add(plan.phase)
        last, progress = (begins, plan.phase), progress.after(plan)


def _constants(setup: Setup) -> list[Tensor]:
    return [*setup.problem.model.constants(), *setup.loss.buffers()]


def _phi(setup: Setup) -> Tensors:
    return {name: value.detach() for name, value in setup.loss.named_parameters()}


def train_together(trainers: Sequence[Trainer], interrupted: Callable[[], bool]) -> None:
    """Train members that stand at the same place to their ends, in one program.

    A member that ends early leaves the others to go on. Returns early, with every member's state
    in its trainer, when ``interrupted`` says so.
    """
    live = [trainer for trainer in trainers if trainer.next_plan() is not None]
    if not live:
        return
    advance, states = (
        StackedAdvance([t.setup.advance for t in live]),
        stack([trainer.state for trainer in live]),
    )
    while plan := live[0].next_plan():
        began, compiled = time.perf_counter(), advance.compile_seconds
        states = advance(states, plan, live[0].progress)
        compiled = (advance.compile_seconds - compiled) / len(live)
        seconds = (time.perf_counter() - began) / len(live) - compiled
        due, stop = live[0].is_due(plan), interrupted()
        for index, trainer in enumerate(live):
            # Views of every member's values cost time: only for those who look at them.
            state = member(states, index) if due or stop else trainer.state
            trainer.took(plan, state, seconds, compiled)
        if stop:
            return
        if due:
            going = [trainer for trainer in live if trainer.next_plan() is not None]
            if not going:
                break
            if len(going) < len(live):
                live = going
                advance = StackedAdvance([trainer.setup.advance for trainer in live])
            states = stack([trainer.state for trainer in live])
