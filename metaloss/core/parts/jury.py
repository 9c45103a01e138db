"""The jury: trusted rows that move nothing, and choose which weights a run ends with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from metaloss.contracts import Schedule, Task
from metaloss.data.datasets import picked
from metaloss.data.splits import choose
from metaloss.errors import MetalossError
from metaloss.inner.fields import as_inputs
from metaloss.inner.keys import derive, generator
from metaloss.inner.model.functional import FunctionalModel
from metaloss.types import Batch, InnerState

_TESTED = 32  # rows


def with_jury(task: Task, schedule: Schedule, seed: int) -> Task:
    """Return the task with its trusted rows split into movers (``valid``) and a jury.

    The trusted rows are the validation rows of the task; ``schedule.jury`` is the share of them in
    the jury. Each class has the same share in both, up to a row. The split depends on the seed
    alone.

    Raises:
        MetalossError: If there are no rows for the movers, or none for the jury.
    """
    if not schedule.jury:
        return task
    rows = len(task.valid.targets)
    count = jury_size(schedule, rows)
    rng = np.random.default_rng(derive(seed, "jury"))
    every = np.arange(rows)
    members = choose(every, count, rng, strata=_classes(task.valid.targets))
    movers = np.setdiff1d(every, members)
    return replace(task, valid=_rows(task.valid, movers), jury=_rows(task.valid, members))


def jury_size(schedule: Schedule, rows: int) -> int:
    """Return how many of the trusted rows are in the jury.

    Raises:
        MetalossError: If there are no rows for the movers, or none for the jury.
    """
    count = round(schedule.jury * rows)
    if schedule.jury and not 0 < count < rows:
        raise MetalossError(
            f"schedule.jury={schedule.jury:g}: no rows are left for the "
            f"{'jury' if count < 1 else 'movers'}, of {rows} trusted rows; expected a share that "
            "leaves some for both"
        )
    return count


def each(metric: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a metric, which is a mean over rows, of each row alone: (N,).

    Example:
        >>> error = lambda outputs, targets: (outputs.argmax(1) != targets).double().mean()
        >>> each(error, torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 1]))
        tensor([0., 1.], dtype=torch.float64)
    """

    def alone(row: Tensor, target: Tensor) -> Tensor:
        return metric(row.unsqueeze(0), target.unsqueeze(0)).reshape(())

    try:
        return vmap(alone)(outputs, targets)
    except (RuntimeError, ValueError, TypeError):  # a user's metric may do anything with one batch
        return torch.stack([alone(*pair) for pair in zip(outputs, targets, strict=True)])


@torch.no_grad()
def check_metric(task: Task, model: FunctionalModel, state: InnerState) -> None:
    """Raise if the jury cannot tell a difference of the task's metric from chance, row by row.

    The task is the result of :func:`with_jury`.
    """
    if task.jury is None:
        return
    targets = task.jury.targets[:_TESTED]
    if not targets.is_floating_point() and bool((targets == task.ignore_index).any()):
        return  # rows of which less counts weigh less
    device = next(iter(state.params.values())).device
    inputs = task.jury.inputs[:_TESTED].to(device)
    outputs, _ = model(state.params, state.buffers, inputs, train=False)
    # Not what an untrained network returns, which may be nearly the same for all rows.
    draw = torch.randn(outputs.shape, generator=generator(0, "jury")).to(outputs)
    targets = targets.to(device)
    whole, rows = task.metric(draw, targets), each(task.metric, draw, targets)
    if not torch.allclose(rows.double().mean(), whole.double(), rtol=1e-3, atol=1e-6):
        raise MetalossError(
            f"schedule.jury: the metric {task.metric_name} is not the mean of that of single rows, "
            "by which the jury tells differences from chance: expected such a metric, or jury=0"
        )


def _classes(targets: Tensor) -> np.ndarray | None:
    """Return the classes of rows as strata; None for other targets."""
    if targets.is_floating_point() or targets.dim() > 1:
        return None
    return targets.cpu().numpy()


def _rows(batch: Batch, rows: np.ndarray) -> Batch:
    chosen = torch.from_numpy(rows)
    inputs = picked(as_inputs(batch.inputs), chosen, lazy=None, train=False)
    return Batch(inputs, batch.targets[chosen.to(batch.targets.device)])
