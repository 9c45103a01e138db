"""The batches of a run."""

from __future__ import annotations

from functools import partial

import torch

from metaloss.config import RunConfig
from metaloss.contracts import MetaBatch, Schedule, Task, TrainOn
from metaloss.core.batches.streams import BatchStream, concatenated
from metaloss.inner.keys import key_tensor
from metaloss.inner.processes.ranks import Ranks
from metaloss.types import Batch, Window


def streams_of(
    config: RunConfig, task: Task, schedule: Schedule, device: torch.device
) -> dict[str, BatchStream]:
    """Return the training batches of each phase, and under ``"meta/" + phase`` the meta-batches."""
    rows = task.valid if schedule.train_on is TrainOn["validation"] else task.train
    if schedule.train_on is TrainOn["train+validation"]:
        rows = concatenated(task.train, task.valid)
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


def first_window(schedule: Schedule, config: RunConfig, batch: Batch, meta_batch: Batch) -> Window:
    """Return a window as long as the first one with a meta-step, but at most two steps."""
    first = next((plan for plan in schedule.plans(config.steps) if plan.meta_step), None)
    length = 1 if first is None else min(first.unroll, 2)
    key = key_tensor(config.seed, "probe", device=batch.targets.device)
    return Window((batch,) * length, (key,) * length, meta_batch, key)


def own_rows(batch: Batch, ranks: Ranks) -> Batch:
    """Return the part of a batch that this process works on."""
    share = ranks.share(len(batch.targets))
    # Without a row for each process `check_processes` raises an error.
    own = slice(share.first, share.first + share.rows) if share.rows else slice(None)
    return Batch(batch.inputs[own], batch.targets[own])
