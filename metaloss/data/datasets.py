"""Which data sets are copied into memory, and which are read when their rows are needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
)

from metaloss.data.checks import checked_inputs
from metaloss.data.lazy import LazyRows, is_random
from metaloss.data.materialize import Rows, drawing, loader_rows, materialize
from metaloss.errors import MetalossError
from metaloss.types import Batch

# Rows stay where they are if they would need more than this share of the free memory.
_SHARE = 0.5


def read_rows(
    rows: Rows, part: str, *, seed: int, lazy: bool | None = None, workers: int | None = None
) -> Batch:
    """Return the rows of a split: tensors, or `LazyRows` as inputs; see `TaskOptions`.

    Args:
        rows: As for `materialize`.
        part: The name of the split.
        seed: Determines what random transforms and samplers draw.
        lazy: Whether to read rows when they are needed. None: training rows with random transforms,
            and rows that do not fit into memory.
        workers: The number of processes that read rows lazily. None: those of a ``DataLoader``.

    Raises:
        MetalossError: If rows cannot be read, or not lazily.
    """
    dataset = None
    if lazy is not False:
        with drawing(rows, part, seed):
            dataset = _with_length(rows, part)
    if dataset is None and lazy and part == "train":
        raise MetalossError(
            f"{part}: got {type(rows).__name__}; expected a Dataset with a length, or a DataLoader "
            "of one with the default collate_fn, for lazy=True"
        )
    if dataset is not None:
        if workers is None:
            workers = getattr(rows, "num_workers", 0)
        if lazy or _should_be_lazy(dataset, part):
            if lazy:
                is_random(dataset, part)
            inputs = LazyRows(dataset, part=part, workers=workers, seed=seed)
            return Batch(cast(Tensor, inputs), _targets(inputs))
    batch = materialize(rows, part, seed)
    return batch._replace(inputs=checked_inputs(part, batch.inputs))


def picked(inputs: Tensor, rows: Tensor, *, lazy: bool | None, train: bool) -> Tensor:
    """Return some rows of inputs, which stay lazy if they train, or do not fit into memory."""
    if not isinstance(inputs, LazyRows):
        return inputs[rows]
    found = inputs.subset(rows, anew=train)
    if train or lazy or is_large(found.numel() * found.element_size()):
        return cast(Tensor, found)
    return pytree.tree_map(lambda *blocks: torch.cat(blocks), *found.split(len(found)))


def is_large(size: int) -> bool:
    """Return whether so many bytes are more than half of the free memory."""
    return size > _SHARE * _free_memory()


def _should_be_lazy(dataset: Dataset, part: str) -> bool:
    try:
        rows = LazyRows(dataset, part=part)
        random = part == "train" and is_random(dataset, part)
    except MetalossError:  # a copy tells what is wrong, or holds rows that cannot be read twice
        return False
    return random or is_large(rows.numel() * rows.element_size())


def _with_length(rows: Any, part: str) -> Dataset | None:
    """Return the data set of the rows that are wanted; None if there is none with a length."""
    if isinstance(rows, DataLoader):
        plain = type(rows.batch_sampler) is BatchSampler and rows.collate_fn is default_collate
        if not plain or isinstance(rows.dataset, IterableDataset):
            return None
        return Subset(rows.dataset, loader_rows(rows, part)) if len(rows.dataset) else None  # type: ignore[arg-type]
    if not isinstance(rows, Dataset) or isinstance(rows, IterableDataset | TensorDataset):
        return None
    return rows if hasattr(rows, "__len__") and len(rows) else None


def _targets(rows: LazyRows) -> Tensor:
    """Return all targets: those that the data set surely returns, else each row is read."""
    told = _told(rows.dataset)
    return torch.cat([batch.targets for batch in rows.all()]) if told is None else told.long()


def _told(dataset: Any) -> Tensor | None:
    """Return the targets that a data set of torchvision returns; None: not known.

    An attribute of any other data set may differ from what its rows have, if only for a few.
    """
    if isinstance(dataset, Subset):
        every = _told(dataset.dataset)
        return None if every is None else every[torch.as_tensor(dataset.indices)]
    if isinstance(dataset, ConcatDataset):
        found = [one for part in dataset.datasets if (one := _told(part)) is not None]
        return torch.cat(found) if len(found) == len(dataset.datasets) else None
    if "torchvision" not in sys.modules:
        return None
    from torchvision.datasets import CIFAR10, MNIST, SVHN, DatasetFolder
    from torchvision.datasets.vision import StandardTransform

    kept = {CIFAR10: "targets", MNIST: "targets", SVHN: "labels", DatasetFolder: "samples"}
    name = {one.__getitem__: name for one, name in kept.items()}.get(type(dataset).__getitem__)
    joint = getattr(dataset, "transforms", None)
    plain = joint is None or (type(joint) is StandardTransform and joint.target_transform is None)
    if name is None or not plain or dataset.target_transform is not None:
        return None
    values = getattr(dataset, name)
    return torch.as_tensor([target for _, target in values] if name == "samples" else values)


def _free_memory() -> float:
    """Return the free memory in bytes; infinite where it is not known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return float({line.split()[0]: line.split()[1] for line in lines}["MemAvailable:"]) * 1024
    except (OSError, KeyError, IndexError, ValueError):
        return float("inf")
