"""The state of a run."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metaloss.core.steps.anchor import Anchor
from metaloss.core.steps.averages import Averages
from metaloss.core.steps.guard import GuardState
from metaloss.meta_optimizers.engine import RuleState
from metaloss.types import InnerState, ReplayStep, StepLosses, StoredStep, Tensors


class Pending(NamedTuple):
    """Steps whose task loss is computed on the next training batch (``meta_batch=next``).

    ``passed`` (), bool: whether the guard accepted them. Otherwise there is no meta-step.
    """

    steps: tuple[StoredStep | ReplayStep, ...]
    passed: Tensor


def dropped(pending: Pending | None) -> Pending | None:
    """Return steps that move no φ when their meta-batch comes.

    They stay in the state, so that the states of many members keep one structure.
    """
    return pending and pending._replace(passed=torch.zeros_like(pending.passed))


class Meter(NamedTuple):
    """Sums since the last journal line: (inner, train task, meta task, meta-gradient norm)."""

    sums: Tensor
    counts: Tensor

    @classmethod
    def fresh(cls, device: torch.device) -> Meter:
        """Return an empty meter."""
        return cls(torch.zeros(4, device=device), torch.zeros(4, device=device))


def added(meter: Meter, losses: StepLosses, size: Tensor, measured: Tensor) -> Meter:
    """Return the meter with the losses of a segment; ``measured`` (): and of the norm ``size``."""
    steps = len(losses.inner)
    seen = torch.isfinite(losses.meta_task)
    nothing = torch.zeros_like(losses.meta_task)
    meta_task = torch.where(seen, losses.meta_task, nothing)
    values = torch.stack([losses.inner.sum(), losses.train_task.sum(), meta_task, size])
    ones = torch.ones_like(nothing)
    counts = torch.stack([ones * steps, ones * steps, seen.to(ones.dtype), ones * measured])
    return Meter(
        meter.sums + values.to(meter.sums.dtype),
        meter.counts + counts.to(meter.counts.dtype),
    )


class TrainState(NamedTuple):
    """Everything that changes during a run.

    θ, φ and their optimizer states, steps before their meta-step, the guard's memory, the sums for
    the journal, the ledger of training rows, moving averages, φ's anchor (None: there is none).
    """

    inner: InnerState
    phi: Tensors
    rule: RuleState | None
    pending: Pending | None
    guard: GuardState
    meter: Meter
    ledger: Tensor | None = None
    averages: Averages | None = None
    anchor: Anchor | None = None


class Snapshot(NamedTuple):
    """A state that the guard can restore."""

    inner: InnerState
    phi: Tensors
    rule: RuleState | None


def snapshot(state: TrainState) -> Snapshot:
    """Return the part of the state that the guard needs. Values are never changed in place."""
    return Snapshot(state.inner, state.phi, state.rule)
