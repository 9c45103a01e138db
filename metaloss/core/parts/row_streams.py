"""The batches of a run."""

from __future__ import annotations

from functools import partial

import torch

from metaloss.config import RunConfig
from metaloss.contracts import MetaBatch, Schedule, Task
from metaloss.core.batches.streams import BatchStream, concatenated


def streams_of(
    config: RunConfig, task: Task, schedule: Schedule, device: torch.device
) -> dict[str, BatchStream]:
    """Return the training batches of each phase, and under ``"meta/" + phase`` the meta-batches."""
    rows = {
        "train": task.train,
        "validation": task.valid,
        "train+validation": concatenated(task.train, task.valid),
    }[schedule.train_on.name]
    validates = schedule.meta_batch is MetaBatch.validation
    stream = partial(BatchStream, seed=config.seed, stream_to=device if task.stream else None)
    training = partial(stream, rows, size=config.batch_size, augment=task.augment)
    meta_batches = partial(
        stream,
        task.valid if validates else task.train,
        size=config.meta_batch_size,
        augment=None if validates else task.augment,
    )
    return {
        "train": training(purpose="train"),
        "offline": training(purpose="offline"),
        "meta/train": meta_batches(purpose="meta/train"),
        "meta/offline": meta_batches(purpose="meta/offline"),
    }
