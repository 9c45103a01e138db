"""What a plain step takes: what the cost of a moving loss is measured against."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from metaloss.contracts import Plan, Progress
from metaloss.core.steps.state import TrainState

_TURNS, _STEPS = 5, 4


def plain_seconds(
    advance: Callable[[TrainState, Plan, Progress], TrainState], state: TrainState
) -> float:
    """Return the seconds of a step with the loss at rest, timed here and thrown away.

    The median of five turns of four steps; a GPU is waited for at the end of a turn, as a run's
    steps do not wait for it either.

    Args:
        advance: A run's, or that of many runs at once.
        state: Where to step from.
    """
    inner = state.inner
    plan = Plan(phase="train")

    def turn() -> None:
        stepped = state
        for number in range(_STEPS):
            before = stepped._replace(inner=inner, pending=None)
            stepped = advance(before, plan, Progress(train=number))
        if stepped.guard.bad.is_cuda:
            torch.cuda.synchronize(stepped.guard.bad.device)

    turn()  # compiled in a run of compiled steps, if this form of a step did not occur in it
    seconds = []
    for _ in range(_TURNS):
        began = time.perf_counter()
        turn()
        seconds.append((time.perf_counter() - began) / _STEPS)
    return sorted(seconds)[_TURNS // 2]
