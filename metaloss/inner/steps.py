"""Inner steps in a row, and the record that is walked back over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metaloss.inner.problem import Forward, InnerProblem
from metaloss.types import Batch, InnerState, ReplayStep, StoredStep, Tensors


class Unrolled(NamedTuple):
    """What K inner steps came to.

    Attributes:
        state: After the last of them.
        records: One for each step; without a state where none is kept.
        inner: (K,) learned loss of each step, before it; (N, K) of N members at once.
        task: (K,) or (N, K) task loss on the same batches and predictions.
    """

    state: InnerState
    records: list[StoredStep | ReplayStep]
    inner: Tensor
    task: Tensor


def take_steps(
    problem: InnerProblem,
    phi: Tensors,
    state: InnerState,
    unroll: Iterable[ReplayStep],
    keeps: Callable[[int], bool] | None = None,
    forward: Forward | None = None,
) -> Unrolled:
    """Take inner steps with φ at rest.

    Args:
        problem: The functions of an inner step.
        phi: φ by name.
        state: The state before the first step.
        unroll: What each step sees, at least one.
        keeps: Whether the state before step k is kept in its record; None: every one is.
        forward: The model's pass over the first batch, if it was run already.
    """
    shared = forward is not None
    records: list[StoredStep | ReplayStep] = []
    inner, task = [], []
    for index, seen in enumerate(unroll):
        stepped = problem.step(phi, state, *seen, forward)
        # A step on a pass that was shared is compiled otherwise than the step taken again: what it
        # led to is kept, not computed anew with other rounding.
        kept = keeps is None or keeps(index) or (shared and index == 1)
        records.append(StoredStep(state, *seen, stepped.grads) if kept else seen)
        state, forward = stepped.state, None
        inner.append(stepped.loss)
        task.append(stepped.task)
    return Unrolled(state, records, torch.stack(inner, -1), torch.stack(task, -1))


def as_replay_steps(batches: Sequence[Batch], keys: Sequence[Tensor]) -> list[ReplayStep]:
    """Return what each of K steps sees, of K batches and the keys of their dropout masks."""
    return [ReplayStep(batch, key) for batch, key in zip(batches, keys, strict=True)]
