"""The rows of tensors, datasets or loaders as one pair of tensors, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    TensorDataset,
    default_collate,
)

from metaloss.data.checks import as_rows
from metaloss.errors import MetalossError, first_line
from metaloss.inner.fields import as_inputs, leaves, named
from metaloss.inner.keys import derive
from metaloss.inner.model.randomness import seeded, sources
from metaloss.types import Batch

Rows = tuple[Any, Any] | Mapping[str, Any] | Dataset | DataLoader

_CHUNK = 256
# Names of the targets in a dictionary, as in Hugging Face's data sets.
_TARGETS = ("labels", "label")
# An iterable with more rows counts as endless.
_MOST_ROWS = 4_000_000


def materialize(rows: Rows, part: str, seed: int = 0) -> Batch:
    """Return all rows as inputs and targets on the CPU.

    Random transforms of a dataset are drawn once and then fixed (`LazyRows` draws anew). They
    depend only on ``seed`` if they draw from torch, numpy or Python, whose states are restored.

    Args:
        rows: A pair of tensors or arrays; a ``Dataset`` of (inputs, target) pairs; or a
            ``DataLoader``. Inputs may be a tuple, list or dictionary of tensors; a dictionary with
            an entry ``labels`` or ``label`` is inputs and targets in one. Rows are read once, in
            this process. A loader's workers are not started, because each may yield every row of an
            ``IterableDataset``. A loader's sampler determines which rows are read, but not their
            order. ``drop_last`` drops no rows if the loader has an ordinary batch sampler.
        part: The name of the split, for messages.
        seed: Determines what a random sampler or transform draws.

    Raises:
        MetalossError: If the rows are of another type, are not pairs, cannot be stacked, differ in
            number, are empty or endless, if their number is not the dataset's length, or if a
            sampler draws a row more than once.

    Example:
        >>> pairs = TensorDataset(torch.arange(6.0).reshape(6, 1), torch.arange(6))
        >>> batch = materialize(DataLoader(pairs, batch_size=4, shuffle=True), "train")
        >>> batch.targets.tolist()
        [0, 1, 2, 3, 4, 5]
    """
    if isinstance(rows, tuple | list | Mapping):
        batch = pair_of(rows, part)
    elif isinstance(rows, TensorDataset):
        batch = pair_of(rows.tensors, part)
    elif isinstance(rows, DataLoader | Dataset):
        with drawing(rows, part, seed):
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
        raise _empty(part)
    for name, tensor in all_named(batch).items():
        if tensor.numel() == 0:
            raise MetalossError(
                f"{part}: {name} of shape {tuple(tensor.shape)} have no values; expected at "
                "least one in each row"
            )
    return batch


def all_named(batch: Batch) -> dict[str, Tensor]:
    """Return the tensors of a batch with their names, for messages."""
    fields = {f"inputs {name}".rstrip(): one for name, one in named(batch.inputs).items()}
    return {**fields, "targets": batch.targets}


@contextmanager
def drawing(rows: Any, part: str, seed: int) -> Iterator[None]:
    """Let samplers and transforms draw by the seed, and restore all generators at the end."""
    with seeded(sources(inside(rows)), derive(seed, f"data/materialize/{part}")):
        yield


def inside(dataset: Any) -> Iterator[Any]:
    """Yield a data set or loader, those that it is made of, and their transforms."""
    if hasattr(dataset, "__dict__"):
        yield dataset
        for name in ("dataset", "datasets", "transform", "transforms", "target_transform"):
            part = getattr(dataset, name, None)
            for one in part if isinstance(part, list | tuple) else [part]:
                yield from inside(one)


def halves(values: Any, part: str) -> Any:
    """Return the inputs and targets of a dictionary; anything else as it is.

    Raises:
        MetalossError: If it has no targets.
    """
    if not isinstance(values, Mapping):
        return values
    target = next((name for name in _TARGETS if name in values), None)
    if target is None:
        raise MetalossError(
            f"{part}: got a dictionary of {', '.join(map(str, values))}; expected an entry "
            "'labels' or 'label' with the targets, or pairs of (inputs, targets)"
        )
    return {name: one for name, one in values.items() if name != target}, values[target]


def pair_of(values: Any, part: str) -> Batch:
    """Return a pair of inputs and targets as tensors on the CPU.

    Raises:
        MetalossError: If it is not a pair of tensors or arrays of real numbers.
    """
    values = halves(values, part)
    if not isinstance(values, tuple | list) or len(values) != 2:
        got = f"{len(values)} values" if isinstance(values, tuple | list) else type(values).__name__
        raise MetalossError(f"{part}: got {got}; expected pairs of (inputs, targets)")
    return Batch(_inputs(values[0], part), as_rows(values[1], part))


def _inputs(value: Any, part: str) -> Any:
    if not isinstance(value, Mapping | tuple | list) or not _holds_rows(value):
        return as_rows(value, part)
    fields = pytree.tree_map(lambda one: as_rows(one, part), as_inputs(value))
    counts = {name: len(one) for name, one in named(fields).items()}
    if len(set(counts.values())) > 1:
        raise MetalossError(f"{part}: inputs with {counts} rows; expected equal numbers")
    return fields


def _holds_rows(value: Any) -> bool:
    return any(isinstance(one, Tensor | np.ndarray) for one in leaves(as_inputs(value)))


def _join(batches: Iterable[Any], part: str) -> Batch:
    pairs = [pair_of(batch, part) for batch in batches]
    if not pairs:
        raise _empty(part)
    try:
        joined: Batch = pytree.tree_map(lambda *values: torch.cat(values), *pairs)
    except (RuntimeError, ValueError) as error:
        raise unstackable(part, error) from error
    return joined


def _read(rows: Dataset | DataLoader, part: str) -> Iterator[Any]:
    """Yield collated batches, in this process."""
    loader = rows if isinstance(rows, DataLoader) else None
    dataset = rows.dataset if isinstance(rows, DataLoader) else rows
    collate = default_collate if loader is None else loader.collate_fn
    if isinstance(dataset, IterableDataset):
        items = _iterated(dataset, part)
    elif loader is None:
        items = _picked(dataset, range(len(dataset)), part)  # type: ignore[arg-type]
    else:
        items = _picked(dataset, loader_rows(loader, part), part)
    if loader is not None and loader.batch_sampler is None:
        for item in items:  # each item is a batch
            yield _collated(item, collate, part)
        return
    chunk: list[Any] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == _CHUNK:
            yield _collated(chunk, collate, part)
            chunk = []
    if chunk:
        yield _collated(chunk, collate, part)


def _picked(dataset: Any, indices: Iterable[Any], part: str) -> Iterator[Any]:
    for index in indices:
        yield _fetched(partial(dataset.__getitem__, index), index, part)


def _iterated(dataset: IterableDataset, part: str) -> Iterator[Any]:
    done = object()
    iterator = _fetched(lambda: iter(dataset), 0, part)
    count = 0
    while (item := _fetched(lambda: next(iterator, done), count, part)) is not done:
        count += 1
        if count > _MOST_ROWS:
            raise MetalossError(
                f"{part}: the iterable gives more than {_MOST_ROWS:,} rows; expected one that ends "
                "(or the rows as a pair of tensors)"
            )
        yield item
    try:
        length = len(dataset)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):  # most have no length
        return
    if length != count:
        raise MetalossError(
            f"{part}: the iterable gives {count} rows, but its length is {length}; expected equal "
            "numbers (was it iterated before?)"
        )


def _fetched(fetch: Callable[[], Any], place: Any, part: str) -> Any:
    try:
        return fetch()
    # A dataset may raise anything.
    except Exception as error:
        raise MetalossError(f"{part}: {failed_row(place, error)}") from error


def failed_row(place: Any, error: Exception) -> str:
    """Return how a data set fails, in one line."""
    reason = str(error).strip().split("\n")[0]
    return f"the dataset fails at row {place}: {type(error).__name__}: {reason}"


def loader_rows(loader: DataLoader, part: str) -> list[Any]:
    """Return the numbers of the rows that a loader reads, in the order of its dataset.

    Raises:
        MetalossError: If it draws a row more than once.
    """
    batches = loader.batch_sampler
    sampler = loader.sampler if batches is None else getattr(batches, "sampler", None)
    if isinstance(sampler, DistributedSampler):
        raise MetalossError(
            f"{part}: got a loader with a DistributedSampler, which gives each process other rows; "
            "expected its dataset"
        )
    # Without a batch sampler, an index may be a list of indices.
    drawn: Any = batches.sampler if type(batches) is BatchSampler else (batches or sampler)
    taken: list[Any] = []
    seen: set[Any] = set()
    for index in drawn:
        several = np.asarray(index).ravel().tolist()
        # Checked for each index, because a sampler that repeats rows may be endless.
        if len(set(several)) < len(several) or not seen.isdisjoint(several):
            raise MetalossError(
                f"{part}: got a loader that draws rows more than once; expected its dataset"
            )
        seen.update(several)
        taken += [index] if batches is None else several
    return taken if batches is None else sorted(taken)


def _collated(rows: Any, collate: Any, part: str) -> Any:
    try:
        return collate(rows)
    except Exception as error:
        raise unstackable(part, error) from error


def _empty(part: str) -> MetalossError:
    return MetalossError(f"{part} is empty: expected at least one row")


def unstackable(part: str, error: Exception) -> MetalossError:
    """Return the error for rows of different shapes."""
    reason = first_line(error)
    return MetalossError(f"{part}: its rows cannot be stacked into tensors of one shape: {reason}")
