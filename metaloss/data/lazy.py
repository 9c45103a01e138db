"""Inputs that are read when they are needed, by worker processes."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, default_collate

from metaloss.data.checks import checked_inputs
from metaloss.data.materialize import failed_row, halves, inside, pair_of, unstackable
from metaloss.errors import MetalossError, first_line
from metaloss.inner.fields import Fields, leaves
from metaloss.inner.keys import derive
from metaloss.inner.model.randomness import Source, drawn_from, seeded, sources
from metaloss.types import Batch

# A block of rows that is read at once has at most this many values.
_VALUES = 2**25
# So many rows stand for all of them where rows are compared.
_SOME = 16

# A row number and the key of the random numbers of its transforms.
Asked = tuple[int, int]


class LazyRows:
    """Inputs (N, ...) of a ``Dataset``: it stands for their tensor in a `Batch`.

    Random transforms draw from the global generators of torch, numpy and Python, or from generators
    in attributes of the data set. For each row they are seeded by a key, so that the draws do
    neither depend on the number of workers nor on what was read before. Where rows are read by
    their number, as in an evaluation, each row has a fixed key.

    Args:
        dataset: (inputs, target) pairs.
        part: The name of the split, for messages.
        workers: The number of processes that read; 0: this process.
        seed: Determines the draws.
        anew: So many rows, the first ones, get new draws in every batch; None: all.

    Attributes:
        form: The inputs of the first row, (1, ...).

    Raises:
        MetalossError: If a row cannot be read.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        dataset: Dataset,
        *,
        part: str,
        workers: int = 0,
        seed: int = 0,
        anew: int | None = None,
    ) -> None:
        self.dataset, self.part, self.workers, self.seed = dataset, part, workers, seed
        self._count = len(dataset)  # type: ignore[arg-type]
        self._anew = self._count if anew is None else anew
        self.form = self[:1]
        first = leaves(self.form)[0]
        several = isinstance(self.form, Fields)
        self.shape = torch.Size((self._count, *(() if several else first.shape[1:])))
        self.dtype, self.ndim = first.dtype, len(self.shape)

    def __len__(self) -> int:
        """Return N."""
        return self._count

    def __getitem__(self, chosen: int | slice | Tensor) -> Tensor:
        """Return some rows, with their fixed draws."""
        rows = torch.arange(self._count)[chosen]
        found = next(self.read([self._fixed(rows.reshape(-1))], workers=0)).inputs
        return found if rows.dim() else found[0]

    def split(self, count: int) -> Iterator[Tensor]:
        """Yield blocks of at most ``count`` rows in their order, with their fixed draws."""
        return (batch.inputs for batch in self.all(count))

    def all(self, count: int = _VALUES) -> Iterator[Batch]:
        """Yield batches of at most ``count`` rows with their targets, in their order."""
        count = max(min(count, _VALUES // max(self._values, 1)), 1)
        return self.read(self._fixed(rows) for rows in torch.arange(self._count).split(count))

    def subset(self, rows: Tensor, *, anew: bool) -> LazyRows:
        """Return some rows, with new draws in every batch or with fixed ones."""
        return self._of(Subset(self.dataset, rows.tolist()), anew=len(rows) if anew else 0)

    def joined(self, other: Tensor | LazyRows) -> LazyRows:
        """Return these rows and further ones, whose draws are fixed."""
        further = other.dataset if isinstance(other, LazyRows) else other
        both: Dataset = ConcatDataset([_InputsOf(self.dataset), _InputsOf(further)])
        return self._of(both, anew=self._anew)

    @classmethod
    def of(cls, inputs: Tensor) -> LazyRows:
        """Return inputs that are in memory."""
        return cls(_InputsOf(inputs), part="train", anew=0)

    def some(self) -> Tensor:
        """Return a few of the rows, which stand for all of them."""
        return self[torch.linspace(0, self._count - 1, min(_SOME, self._count)).long()]

    def numel(self) -> int:
        """Return the number of values."""
        return self._count * self._values

    @property
    def _values(self) -> int:
        return sum(one.numel() for one in leaves(self.form))

    def element_size(self) -> int:
        """Return the size of a value in bytes; of the largest ones, if they differ."""
        return max(one.element_size() for one in leaves(self.form))

    def is_floating_point(self) -> bool:
        """Return whether inputs are no tokens."""
        return self.dtype.is_floating_point

    def asked(self, rows: Tensor, key: int) -> list[Asked]:
        """Return what to ask `read` for a training batch of these rows."""
        fixed = self._fixed(rows)
        return [
            (row, derive(key, "transform", place)) if row < self._anew else (row, known)
            for place, (row, known) in enumerate(fixed)
        ]

    def read(self, asked: Iterable[list[Asked]], workers: int | None = None) -> Iterator[Batch]:
        """Yield a batch for each list of (row, key)."""
        loader = DataLoader(
            _Keyed(self.dataset),
            batch_sampler=cast(Any, asked),
            num_workers=self.workers if workers is None else workers,
            collate_fn=partial(_collated, part=self.part),
            worker_init_fn=_ignore_interrupts,
            # Without it, torch's global generator would be used, and changed.
            generator=torch.Generator(),
        )
        try:
            for batch in loader:
                if isinstance(batch, str):
                    raise MetalossError(batch)
                yield batch
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise MetalossError(f"{self.part}: reading rows: {first_line(error)}") from error

    def _fixed(self, rows: Tensor) -> list[Asked]:
        return [(row, derive(self.seed, "row", row)) for row in rows.tolist()]

    def _of(self, dataset: Dataset, *, anew: int) -> LazyRows:
        known = {"part": self.part, "workers": self.workers, "seed": self.seed}
        return LazyRows(dataset, anew=anew, **known)  # type: ignore[arg-type]


def compared(inputs: Tensor | LazyRows) -> Tensor:
    """Return the values by which rows are compared: some of the rows if they are read lazily."""
    return inputs.some() if isinstance(inputs, LazyRows) else inputs


def is_random(dataset: Dataset, part: str) -> bool:
    """Return whether reading a row draws random numbers, or its values differ from time to time.

    Draws are looked for, because a transform may draw at each row, and change only a few of them.

    Raises:
        MetalossError: If it differs with the same random numbers too.
    """
    rows = LazyRows(dataset, part=part)
    few = range(min(_SOME, len(rows)))

    def read(key: int) -> list[Tensor]:
        return leaves(next(rows.read([[(row, key + row) for row in few]])).inputs)

    once, other = read(0), read(_SOME)
    if all(map(torch.equal, once, other)):
        return _draws(dataset, few)
    if not all(map(torch.equal, once, read(0))):
        raise MetalossError(
            f"{part}: a row of the data set differs when it is read again with the same random "
            "numbers; expected transforms that draw from torch, numpy or random"
        )
    return True


def _draws(dataset: Dataset, rows: Iterable[int]) -> bool:
    used = sources(inside(dataset))
    with seeded(used, 0):
        before = [source.get() for source in used]
        for row in rows:
            dataset[row]
        return bool(drawn_from(used, before))


class _Failed(NamedTuple):
    """What went wrong in a worker, in one line."""

    message: str


class _Keyed(Dataset):
    """The rows of a data set, asked for with the key of their random numbers."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._sources: list[Source] | None = None

    def __getitem__(self, asked: Asked) -> Any:
        row, key = asked
        if self._sources is None:  # not before, because they cannot be sent to a worker
            self._sources = sources(inside(self.dataset))
        with seeded(self._sources, key):
            try:
                return self.dataset[row]
            # A data set may raise anything.
            except Exception as error:
                return _Failed(failed_row(row, error))


class _InputsOf(Dataset):
    """The inputs of a data set, a tensor or fields, as pairs with a meaningless target."""

    def __init__(self, rows: Any) -> None:
        self.dataset, self._pairs = rows, isinstance(rows, Dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        found = self.dataset[row]
        if self._pairs:
            return halves(found, "train")[0], 0
        return found.tree if isinstance(found, Fields) else found, 0


def _collated(rows: list[Any], part: str) -> Batch | str:
    """Return a batch, or what went wrong: an error would lose its single line in a worker."""
    failed = next((row for row in rows if isinstance(row, _Failed)), None)
    if failed is not None:
        return f"{part}: {failed.message}"
    try:
        inputs, targets = pair_of(default_collate(rows), part)
        return Batch(checked_inputs(part, inputs), targets)
    except MetalossError as error:
        return str(error)
    except (RuntimeError, TypeError) as error:
        return str(unstackable(part, error))


def _ignore_interrupts(_: int) -> None:
    """Leave Ctrl-C to the run, which ends its step and closes the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
