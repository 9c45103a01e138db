"""What a run keeps of its training rows: for the table of suspects, and for a loss that sees it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from metaloss.config import RunConfig
from metaloss.contracts import Task
from metaloss.core.steps import ledger
from metaloss.errors import MetalossError
from metaloss.inner.problem import InnerProblem
from metaloss.inner.weighted import sees
from metaloss.losses.base import LearnedLoss
from metaloss.losses.rows import OF_RUNS
from metaloss.meta_optimizers.search import SearchRule
from metaloss.types import Tensors


def with_ledger(problem: InnerProblem, task: Task, config: RunConfig) -> InnerProblem:
    """Return the problem with what the ledger of training rows needs.

    Raises:
        MetalossError: If the loss sees the ledger, and the run has none.
    """
    notes = ledger.notes_of(task) if config.ledger else None
    seen = sees(problem.loss) & OF_RUNS
    if not seen:
        return replace(problem, notes=notes)
    given = f"loss={config.loss.name} sees {', '.join(sorted(seen))} of each training row"
    if notes is None:
        found = "has no ledger" if config.ledger else "ledger=false"
        raise MetalossError(f"{given}, which the ledger holds, but the run {found}: expected one")
    if isinstance(config.meta_optimizer.options, SearchRule):
        raise MetalossError(
            f"{given}, and meta_optimizer={config.meta_optimizer.name} tries losses without it: "
            "expected a meta-optimizer with gradients, such as mixed"
        )
    if "average" in seen:
        notes = ledger.with_predictions(notes, task.link)
    recall = partial(ledger.recall, link=task.link, classes=task.outputs)
    return replace(problem, notes=notes, recall=recall)


def weights_of_classes(task: Task, device: torch.device) -> Tensor | None:
    """Return the weights (C,) of the classes of a task; None: they have none."""
    weights = task.class_weights
    return None if weights is None else torch.tensor(weights, device=device)


def guarded_loss(task: Task) -> float:
    """Return the task loss below which no step is refused: that of the best constant prediction.

    With class weights it may be near 0, and a batch without the heavy classes far above it. Equal
    probabilities have the task loss log C whatever the weights.
    """
    if task.class_weights is None:
        return task.constant_loss
    return max(task.constant_loss, math.log(task.outputs))


def fresh_ledger(rows: int, params: Tensors, loss: LearnedLoss, task: Task) -> Tensor:
    """Return the ledger before training, with the predictions if the loss sees them."""
    return ledger.fresh(rows, params, task.outputs if "average" in loss.sees else 0)
