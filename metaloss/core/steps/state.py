"""Everything that changes in a run, as one value."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metaloss.core.steps.guard import GuardState
from metaloss.meta_optimizers.outer import OuterState
from metaloss.types import InnerState, ReplayStep, StoredStep, Tensors


class Pending(NamedTuple):
    """Steps that wait for the next training batch to judge them (``meta_batch=next``).

    ``passed`` (), bool: whether the guard let them pass. Steps that did not pass move no φ.
    """

    steps: tuple[StoredStep | ReplayStep, ...]
    passed: Tensor


class Meter(NamedTuple):
    """Sums since the last journal line: (inner, train task, meta task, meta-gradient norm)."""

    sums: Tensor
    counts: Tensor

    @classmethod
    def fresh(cls, device: torch.device) -> Meter:
        """Return an empty meter."""
        return cls(torch.zeros(4, device=device), torch.zeros(4, device=device))


class TrainState(NamedTuple):
    """θ with its optimizer, φ with its own, what waits to be judged, the guard's memory."""

    inner: InnerState
    phi: Tensors
    outer: OuterState | None
    pending: Pending | None
    guard: GuardState
    meter: Meter


class Snapshot(NamedTuple):
    """What the guard goes back to."""

    inner: InnerState
    phi: Tensors
    outer: OuterState | None


def snapshot(state: TrainState) -> Snapshot:
    """Return what the guard would need; values are never mutated, so that nothing is copied."""
    return Snapshot(state.inner, state.phi, state.outer)
