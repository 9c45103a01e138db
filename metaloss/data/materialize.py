"""Whatever holds a user's rows, as one pair of tensors in a fixed order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    TensorDataset,
    default_collate,
)

from metaloss.errors import MetalossError
from metaloss.inner.keys import derive
from metaloss.types import Batch

Rows = tuple[Any, Any] | Dataset | DataLoader

_CHUNK = 256


def materialize(rows: Rows, part: str, seed: int = 0) -> Batch:
    """Return all rows as two tensors on the CPU.

    Random transforms of a dataset are drawn once and then fixed; those that use torch's global
    generator depend on ``seed`` only, and its state is kept.

    Args:
        rows: A pair of tensors or arrays; a ``Dataset`` of (inputs, target) pairs; or a
            ``DataLoader``, read once in this process. Of a loader, the sampler says *which* rows
            are taken, never their order, which is the dataset's own; ``drop_last`` drops none
            where the loader has an ordinary batch sampler. A loader over an ``IterableDataset``,
            or with ``batch_size=None``, is taken as it comes.
        part: What the rows are for: used in messages.
        seed: Decides what a random sampler or transform draws.

    Raises:
        MetalossError: If the rows are of another kind, are no pairs, cannot be stacked, do not
            match in number, are empty, or if a sampler draws a row more than once.

    Example:
        >>> pairs = TensorDataset(torch.arange(6.0).reshape(6, 1), torch.arange(6))
        >>> batch = materialize(DataLoader(pairs, batch_size=4, shuffle=True), "train")
        >>> batch.targets.tolist()
        [0, 1, 2, 3, 4, 5]
    """
    if isinstance(rows, tuple | list):
        batch = _pair(rows, part)
    elif isinstance(rows, TensorDataset):
        batch = _pair(rows.tensors, part)
    elif isinstance(rows, DataLoader | Dataset):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, f"data/materialize/{part}"))
            batch = _join(_read(rows, part), part)
    else:
        raise MetalossError(
            f"{part}: got {type(rows).__name__}; expected a pair of tensors, a Dataset or a "
            "DataLoader"
        )
    if len(batch.inputs) != len(batch.targets):
        raise MetalossError(
            f"{part}: {len(batch.inputs)} rows of inputs and {len(batch.targets)} of targets; "
            "expected equal numbers"
        )
    if len(batch.inputs) == 0:
        raise MetalossError(f"{part} is empty: expected at least one row")
    return batch


def _pair(values: Any, part: str) -> Batch:
    if not isinstance(values, tuple | list) or len(values) != 2:
        got = f"{len(values)} values" if isinstance(values, tuple | list) else type(values).__name__
        raise MetalossError(f"{part}: got {got}; expected pairs of (inputs, targets)")
    tensors = []
    for value in values:
        if not isinstance(value, Tensor | np.ndarray):
            raise MetalossError(
                f"{part}: got a pair with a {type(value).__name__}; expected tensors or arrays"
            )
        tensor = torch.as_tensor(value).detach().cpu()
        if tensor.ndim == 0:
            raise MetalossError(f"{part}: got a tensor without dimensions; expected rows (B, ...)")
        tensors.append(tensor)
    return Batch(*tensors)


def _join(batches: Iterable[Any], part: str) -> Batch:
    pairs = [_pair(batch, part) for batch in batches]
    if not pairs:
        raise MetalossError(f"{part} is empty: expected at least one row")
    try:
        inputs, targets = (torch.cat(column) for column in zip(*pairs, strict=True))
    except RuntimeError as error:
        raise _unstackable(part, error) from error
    return Batch(inputs, targets)


def _read(rows: Dataset | DataLoader, part: str) -> Iterable[Any]:
    """Yield collated batches."""
    if isinstance(rows, DataLoader):
        dataset, collate = rows.dataset, rows.collate_fn
        if isinstance(dataset, IterableDataset) or rows.batch_sampler is None:
            yield from rows
            return
        indices = _indices(rows, part)
    else:
        dataset, collate = rows, default_collate
        if isinstance(dataset, IterableDataset):
            yield _collated(list(dataset), collate, part)
            return
        indices = list(range(len(dataset)))  # type: ignore[arg-type]
    for start in range(0, len(indices), _CHUNK):
        chunk = [dataset[index] for index in indices[start : start + _CHUNK]]
        yield _collated(chunk, collate, part)


def _indices(loader: DataLoader, part: str) -> list[int]:
    batches = loader.batch_sampler
    assert batches is not None
    if type(batches) is BatchSampler:
        drawn = [int(index) for index in batches.sampler]
    else:
        drawn = [int(index) for batch in batches for index in batch]
    if len(set(drawn)) < len(drawn):
        raise MetalossError(
            f"{part}: the loader's sampler draws rows more than once; pass its dataset instead"
        )
    return sorted(drawn)


def _collated(rows: list[Any], collate: Any, part: str) -> Any:
    if not rows:
        raise MetalossError(f"{part} is empty: expected at least one row")
    try:
        return collate(rows)
    except (TypeError, RuntimeError) as error:
        raise _unstackable(part, error) from error


def _unstackable(part: str, error: Exception) -> MetalossError:
    reason = str(error).split("\n")[0]
    return MetalossError(f"{part}: its rows cannot be stacked into tensors of one shape: {reason}")
