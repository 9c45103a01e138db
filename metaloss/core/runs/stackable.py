"""Checks whether many runs can be trained as one vectorised program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from metaloss.contracts import Plan, Progress
from metaloss.core.parts.setup import Setup
from metaloss.core.search.loop import check_search
from metaloss.core.steps.stacked import StackedAdvance
from metaloss.errors import UnsupportedError, first_line
from metaloss.losses.base import phi_of


def check_together(setups: Sequence[Setup]) -> None:
    """Raise if a single run, or many runs as one program, cannot be trained.

    Raises:
        MetalossError: If the search of a single run is not possible.
        UnsupportedError: See :func:`check_stackable`.
    """
    if len(setups) == 1:
        check_search(setups[0])
    else:
        check_stackable(setups)


def check_stackable(setups: Sequence[Setup]) -> None:
    """Raise if the runs cannot be one program, which is tested on a few steps.

    Raises:
        UnsupportedError: If an engine, a model or a task does not support it; with the reason.
    """
    first, count = setups[0], len(setups)
    alone = f"seeds={count}: %s: train the seeds one at a time"
    if first.search is not None:
        raise UnsupportedError(
            alone % f"meta_optimizer={first.config.meta_optimizer.name} is a search"
        )
    if first.schedule.learns and not first.engine.stacks:
        raise UnsupportedError(
            alone % f"meta_optimizer={first.config.meta_optimizer.name} supports one run at a time "
            "(mixed and finite_difference support many)"
        )
    if len({(str(setup.task.input_shape), setup.task.outputs) for setup in setups}) > 1:
        raise UnsupportedError(
            alone % "their rows differ in number, because each has its own split "
            "(task.split_seed=0 gives all the same split)"
        )
    for setup in setups[1:]:
        for own, other in zip(_constants(first), _constants(setup), strict=True):
            if not torch.equal(own, other):
                raise UnsupportedError(
                    alone % "the model, the loss or the class weights have fixed values that differ"
                )
    # A separate forward pass, which finds foreign randomness.
    params, buffers = first.problem.model.state()
    first.problem.predict(
        params, buffers, first.advance.streams["train"][0], first.advance.key("probe", 0)
    )
    if first.problem.model.foreign_randomness:
        raise UnsupportedError(alone % "the model draws random numbers outside of nn.Dropout")
    advance = StackedAdvance([setup.advance for setup in setups], tried=True)
    begun = [setup.state(setup.advance.fresh("train", 0), phi_of(setup.loss)) for setup in setups]
    states = advance.joined(begun)
    try:
        for plan, progress in _telling(first):
            states = advance(states, plan, progress)
    except RuntimeError as error:
        raise UnsupportedError(
            alone % f"not every operation can be vectorised ({first_line(error)})"
        ) from error


def _telling(setup: Setup) -> Iterator[tuple[Plan, Progress]]:
    """Yield steps of every kind in a run.

    These are the first step, and in each phase the first step with a meta-step and the next one,
    whose batch may be the meta-batch.
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
    weights = setup.problem.class_weights
    own = [] if weights is None else [weights]
    return [*setup.problem.model.constants(), *setup.loss.buffers(), *own]
