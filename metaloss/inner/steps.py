"""A sequence of inner steps, with records for the pass back through them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from metaloss.inner.problem import Forward, InnerProblem
from metaloss.types import InnerState, ReplayStep, StepLosses, StoredStep, Tensors


class Unrolled(NamedTuple):
    """The result of K inner steps.

    Attributes:
        state: The state after the last step.
        records: One for each step, with or without the state before it.
        losses: (K,) before each step, or (N, K) for N members. ``meta_task`` is NaN.
        notes: (K, B, 3) or (N, K, B, 3) for the ledger of training rows; None: there are none.
    """

    state: InnerState
    records: list[StoredStep | ReplayStep]
    losses: StepLosses
    notes: Tensor | None = None


def take_steps(
    problem: InnerProblem,
    phi: Tensors,
    state: InnerState,
    unroll: Iterable[ReplayStep],
    keeps: Callable[[int], bool] | None = None,
    forward: Forward | None = None,
) -> Unrolled:
    """Take one inner step or more with constant φ.

    ``keeps`` says whether the record of step k has the state before it; None: all records have it.
    ``forward`` is the forward pass of the first batch, if it was computed already.
    """
    shared = forward is not None
    records: list[StoredStep | ReplayStep] = []
    inner, task, notes = [], [], []
    for index, seen in enumerate(unroll):
        stepped = problem.step(phi, state, *seen, forward)
        # A step with a shared forward pass is another compiled program than a replayed step, with
        # other rounding. So the state after it is kept and not computed again.
        kept = keeps is None or keeps(index) or (shared and index == 1)
        stored = StoredStep(state, *seen, stepped.grads, between=stepped.between)
        records.append(stored if kept else seen)
        state, forward = stepped.state, None
        inner.append(stepped.loss)
        task.append(stepped.task)
        notes += [] if stepped.notes is None else [stepped.notes]
    noted = torch.stack(notes, -3) if notes else None
    no_meta_loss = torch.full_like(inner[0], float("nan"))
    losses = StepLosses(torch.stack(inner, -1), torch.stack(task, -1), no_meta_loss)
    return Unrolled(state, records, losses, noted)
