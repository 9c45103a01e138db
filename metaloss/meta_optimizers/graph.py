"""Inner steps in one autograd graph, for engines that unroll through a library."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.inner.gradients import check_whole, gradient_of
from metaloss.inner.problem import InnerProblem
from metaloss.types import (
    Batch,
    InnerState,
    MetaGradient,
    RowSample,
    StepLosses,
    Tensors,
    Window,
)


class Unroll(Protocol):
    """θ during the inner steps, as a library holds it."""

    @property
    def params(self) -> Tensors:
        """The current θ by name."""

    @property
    def optimizer(self) -> Any:
        """The current state of the optimizer."""

    def predict(
        self, buffers: Tensors, batch: Batch, key: Tensor, sample: RowSample | None = None
    ) -> tuple[Tensor, Tensors]:
        """Return the raw outputs at θ in train mode, and the new buffers."""

    def descend(self, loss: Tensor) -> None:
        """Update θ by one inner step on ``loss``, keeping the graph."""


def through_graph(
    problem: InnerProblem, phi: Tensors, buffers: Tensors, window: Window, unroll: Unroll
) -> MetaGradient:
    """Take the window's inner steps with ``unroll``, then differentiate all of them by autograd.

    ``buffers`` and ``unroll`` are those before the first step.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in phi.items()}
    points = {point.after: point for point in window.points}
    earlier: Tensor | float = 0.0
    inner, train_task, notes = [], [], []

    def judged(batch: Batch, key: Tensor) -> Tensor:
        sample = problem.judging(batch, key)
        outputs, _ = unroll.predict(buffers, batch, key, sample)
        return problem.judged_loss(outputs, batch.targets, sample)

    with torch.enable_grad():
        for place, (batch, key) in enumerate(zip(window.batches, window.keys, strict=True)):
            if place in points:
                point = points[place]
                earlier = earlier + point.weight * judged(point.batch, point.key)
            outputs, buffers = unroll.predict(buffers, batch, key)
            loss = problem.learned_loss(leaves, outputs, batch.targets)
            with torch.no_grad():
                train_task.append(problem.task_loss_of(outputs.detach(), batch.targets))
                noted = problem.noted(outputs, batch.targets)
                notes += [] if noted is None else [noted]
            inner.append(loss.detach())
            unroll.descend(loss)
        meta_task = judged(window.meta_batch, window.meta_key)
        check_whole(meta_task)
        objective = meta_task + earlier if points else meta_task
        values = gradient_of(objective, list(leaves.values()))
    # Detached, so that later steps do not extend this graph.
    params, optimizer = pytree.tree_map(torch.detach, (unroll.params, unroll.optimizer))
    return MetaGradient(
        dict(zip(leaves, values, strict=True)),
        InnerState(params, buffers, optimizer),
        StepLosses(torch.stack(inner), torch.stack(train_task), meta_task.detach()),
        torch.stack(notes) if notes else None,
    )
