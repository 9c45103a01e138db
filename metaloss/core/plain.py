"""What a plain step takes: what the cost of a moving loss is measured against."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from metaloss.contracts import Plan, Progress
from metaloss.core.state import TrainState

_TIMED_STEPS = 20


def plain_seconds(
    advance: Callable[[TrainState, Plan, Progress], TrainState], state: TrainState
) -> float:
    """Return the median seconds of a step with the loss at rest, timed here and thrown away.

    Args:
        advance: A run's, or that of many runs at once.
        state: Where to step from.
    """
    inner = state.inner
    plan = Plan(phase="train")
    seconds = []
    for number in range(_TIMED_STEPS):
        began = time.perf_counter()
        state = advance(state._replace(inner=inner, pending=None), plan, Progress(train=number))
        if state.guard.bad.is_cuda:
            torch.cuda.synchronize(state.guard.bad.device)
        seconds.append(time.perf_counter() - began)
    return sorted(seconds)[_TIMED_STEPS // 2]
