"""The jury: trusted rows that move nothing, and choose which weights a run ends with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from metaloss.contracts import Schedule, Task
from metaloss.data.datasets import picked
from metaloss.data.splits import choose
from metaloss.errors import MetalossError
from metaloss.inner.fields import as_inputs
from metaloss.inner.keys import derive
from metaloss.types import Batch


def with_jury(task: Task, schedule: Schedule, seed: int) -> Task:
    """Return the task with its trusted rows split into movers (``valid``) and a jury.

    Each class has the same share in both, up to a row. The split depends on the seed alone.

    Args:
        task: The task; its validation rows are the trusted ones.
        schedule: Its ``jury`` is the share of the trusted rows that are in the jury.
        seed: The run's seed.

    Raises:
        MetalossError: If there are no rows for the movers, or none for the jury.
    """
    if not schedule.jury:
        return task
    rows = len(task.valid.targets)
    count = round(schedule.jury * rows)
    if not 0 < count < rows:
        raise MetalossError(
            f"schedule.jury={schedule.jury:g}: no rows are left for the "
            f"{'jury' if count < 1 else 'movers'}, of {rows} trusted rows; expected a share that "
            "leaves some for both"
        )
    rng = np.random.default_rng(derive(seed, "jury"))
    every = np.arange(rows)
    members = choose(every, count, rng, strata=_classes(task.valid.targets))
    movers = np.setdiff1d(every, members)
    return replace(
        task, valid=_rows(task.valid, movers), jury=_rows(task.valid, members), test=task.test
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
