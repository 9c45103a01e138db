"""Whether many runs can be trained as one vectorised program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from metaloss.contracts import Plan, Progress
from metaloss.core.parts.setup import Setup
from metaloss.core.search.loop import check_search
from metaloss.core.steps.stacked import StackedAdvance
from metaloss.errors import UnsupportedError
from metaloss.inner.stacked import stack
from metaloss.types import Tensors


def check_together(setups: Sequence[Setup]) -> None:
    """Raise unless runs can be done: a single one, or many as one program.

    Raises:
        MetalossError: If the search of a single run cannot be done.
        UnsupportedError: See :func:`check_stackable`.
    """
    if len(setups) == 1:
        check_search(setups[0])
    else:
        check_stackable(setups)


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
