"""The trusted batches that a loss is learned on, from a ``DataLoader``, addressed by number."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from metaloss.errors import MetalossError
from metaloss.inner.keys import generator


class TrustedBatches:
    """The batches of a ``DataLoader`` without end, from any number on.

    A loader with an ordinary order (``shuffle=True`` or ``False``, a dataset with a length) is only
    read: its rows, its batch size, its collation and its workers. Batch n depends on the seed and n
    alone: a new order of the rows is drawn for each pass over them, and every batch is full. So a
    resumed training gets the batches that an uninterrupted one gets, and no global random generator
    is used. In several processes, each gets its own rows of the batch, as many as the loader's
    batch size.

    Any other loader (own sampler, ``IterableDataset``) is used as it is and begun again at its end.
    To begin at batch n, n batches are skipped.

    Args:
        loader: The loader.
        seed: Determines the order.
        rank: The number of this process.
        size: The number of processes.

    Attributes:
        taken: The number of the next batch.

    Raises:
        MetalossError: If it is not a ``DataLoader``, or has no rows.

    Example:
        >>> rows = torch.arange(4.0)
        >>> batches = TrustedBatches(DataLoader(rows, batch_size=3, shuffle=True))
        >>> first, second = next(batches), next(batches)
        >>> batches.taken = 1
        >>> torch.equal(next(batches), second)
        True
    """

    def __init__(self, loader: DataLoader, *, seed: int = 0, rank: int = 0, size: int = 1) -> None:
        if not isinstance(loader, DataLoader):
            raise MetalossError(
                f"the trusted rows are a {type(loader).__name__}: expected a "
                "torch.utils.data.DataLoader"
            )
        self._loader, self._seed, self._rank, self._size = loader, seed, rank, size
        self._ordinary = _is_ordinary(loader)
        if self._ordinary and not len(loader.dataset):  # type: ignore[arg-type]
            raise MetalossError("the trusted DataLoader has no rows: expected one or more")
        self._order: tuple[int, list[int]] = (-1, [])
        self._number, self._batches = 0, iter(())

    @property
    def taken(self) -> int:
        """The number of the next batch. Set it to go on elsewhere."""
        return self._number

    @taken.setter
    def taken(self, number: int) -> None:
        self._number, self._batches = number, iter(())

    def __iter__(self) -> Iterator[Any]:
        """Return itself."""
        return self

    def __next__(self) -> Any:
        """Return the next batch."""
        batch = next(self._batches, self)
        if batch is self:
            self._batches = self._from(self._number)
            batch = next(self._batches)
        self._number += 1
        return batch

    def _from(self, number: int) -> Iterator[Any]:
        loader = self._loader
        if not self._ordinary:
            return islice(_again(loader), number, None)
        workers: dict[str, Any] = {}
        if loader.num_workers:
            workers = {
                "num_workers": loader.num_workers,
                "prefetch_factor": loader.prefetch_factor,
                "multiprocessing_context": loader.multiprocessing_context,
                "worker_init_fn": loader.worker_init_fn,
            }
        # With a generator of its own, because a loader draws a seed for its workers.
        return iter(
            DataLoader(
                loader.dataset,
                batch_sampler=_Rows(self, number),
                collate_fn=loader.collate_fn,
                pin_memory=loader.pin_memory,
                generator=generator(self._seed, "trusted/workers", number),
                **workers,
            )
        )

    def rows(self, number: int) -> list[int]:
        """Return the row numbers of batch ``number``, of this process."""
        total, size = len(self._loader.dataset), self._loader.batch_size or 1  # type: ignore[arg-type]
        first = (number * self._size + self._rank) * size
        return [self._row(place, total) for place in range(first, first + size)]

    def _row(self, place: int, total: int) -> int:
        passed, within = divmod(place, total)
        if isinstance(self._loader.sampler, SequentialSampler):
            return within
        if self._order[0] != passed:
            draw = generator(self._seed, "trusted", passed)
            self._order = passed, torch.randperm(total, generator=draw).tolist()
        return self._order[1][within]


class _Rows:
    """The row numbers of all batches from a number on: a batch sampler."""

    def __init__(self, batches: TrustedBatches, first: int) -> None:
        self._batches, self._first = batches, first

    def __iter__(self) -> Iterator[list[int]]:
        return map(self._batches.rows, count(self._first))


def _is_ordinary(loader: DataLoader) -> bool:
    sampler = loader.sampler
    return (
        not isinstance(loader.dataset, IterableDataset)
        and type(loader.batch_sampler) is BatchSampler
        and loader.batch_size is not None
        and hasattr(loader.dataset, "__len__")
        and (
            type(sampler) is SequentialSampler
            or (
                type(sampler) is RandomSampler
                and not sampler.replacement
                and sampler.num_samples == len(loader.dataset)
            )
        )
    )


def _again(loader: DataLoader) -> Iterator[Any]:
    while True:
        batch: Any = _again
        for batch in loader:
            yield batch
        if batch is _again:
            raise MetalossError("the trusted DataLoader has no rows: expected one or more")
