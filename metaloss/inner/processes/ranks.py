"""The processes of a run, and what they exchange."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import ReferenceType

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.errors import MetalossError
from metaloss.inner.processes import collectives
from metaloss.inner.processes.group_references import release

T = TypeVar("T")


class LostRankError(MetalossError):
    """Another process of the run has ended, or did not answer in time."""

    exit_status = 1


@dataclass(frozen=True, kw_only=True)
class Share:
    """The rows of a batch that a process has: ``rows`` of ``total``, beginning at ``first``."""

    first: int
    rows: int
    total: int
    ranks: Ranks


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those of a run; by default it is the only one.

    All processes must call the methods in the same order, except :meth:`share`.

    Attributes:
        rank: The number of this process, from 0. Only process 0 writes files and calls trackers.
        size: The number of processes.
        group: The process group; None: torch's default one. A weak reference, so that the group
            ends when its owner destroys it (see `group_references`).
        words: A second group for values on the CPU, if the first has no CPU backend.

    Example:
        >>> Ranks().broadcast({"a": torch.ones(2)}), Ranks().any(False)
        ({'a': tensor([1., 1.])}, False)
        >>> Ranks(rank=1, size=3).share(8).first
        2
    """

    rank: int = 0
    size: int = 1
    group: ReferenceType[dist.ProcessGroup] | None = field(default=None, repr=False, compare=False)
    words: ReferenceType[dist.ProcessGroup] | None = field(default=None, repr=False, compare=False)

    @property
    def leads(self) -> bool:
        """Whether this is process 0, which writes files."""
        return self.rank == 0

    def process_group(self) -> dist.ProcessGroup | None:
        """Return the process group; None for the default one."""
        return None if self.group is None else self.group()

    def share(self, total: int) -> Share:
        """Return this process's rows of ``total``. The sizes differ by one row at most."""
        first, end = self._bounds(self.rank, total)
        return Share(first=first, rows=end - first, total=total, ranks=self)

    def sizes(self, total: int) -> list[int]:
        """Return the number of rows of each process, by rank."""
        bounds = [self._bounds(rank, total) for rank in range(self.size)]
        return [end - first for first, end in bounds]

    def gathered(self, rows: Tensor, total: int) -> Tensor:
        """Return all rows (total, ...) in order, from the shares of the processes."""
        return self.joined(rows, self.sizes(total))

    def joined(self, rows: Tensor, sizes: list[int]) -> Tensor:
        """Return all rows (sum of sizes, ...) in order; process r has ``sizes[r]`` of them."""
        # Collectives need blocks of one size: shorter ones are padded, and cut afterwards.
        block = rows
        if len(rows) < max(sizes):
            block = rows.new_zeros(max(sizes), *rows.shape[1:])
            block[: len(rows)] = rows
        with self.speaking():
            blocks = collectives.gathered(block, self.size, self.process_group())
        return torch.cat([one[:size] for one, size in zip(blocks, sizes, strict=True)])

    def summed(self, values: list[Tensor]) -> list[Tensor]:
        """Return the sums over all processes, with one message for each dtype."""
        return _in_messages(values, self._summed)

    def broadcast(self, tree: T) -> T:
        """Return process 0's values of a tree that has the same structure in all processes."""
        leaves, spec = pytree.tree_flatten(tree)
        places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        if self.size == 1 or not places:
            return tree
        if collectives.traced():
            values = [leaves[index].detach() for index in places]
            for index, value in zip(places, _in_messages(values, self._broadcast), strict=True):
                leaves[index] = value
            return pytree.tree_unflatten(leaves, spec)
        # As bytes, in one message for all types.
        raw = [leaves[index].detach().reshape(-1).view(torch.uint8) for index in places]
        flat = torch.cat(raw)
        flat = self._broadcast(flat)
        for index, part in zip(places, flat.split([len(one) for one in raw]), strict=True):
            # A copy, because a view as another type must begin at a multiple of its size.
            leaves[index] = _like(leaves[index], part.clone().view(leaves[index].dtype))
        return pytree.tree_unflatten(leaves, spec)

    def same(self, value: T) -> T:
        """Return process 0's value, a plain Python object."""
        return self.every(value)[0]

    def every(self, value: T) -> list[T]:
        """Return the value of each process, a plain Python object, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with self.speaking():
            dist.all_gather_object(found, value, group=self._words())
        return found

    def together(self, call: Callable[[], T]) -> list[T]:
        """Return the result of a call in each process, by rank. An error in one is raised in all.

        Raises:
            MetalossError: If the call failed in another process; with the reason of the first.
        """
        own: T | None = None
        failed: Exception | None = None
        try:
            own = call()
        except Exception as error:
            failed = error
        known = isinstance(failed, MetalossError)
        said = None if failed is None else f"{failed}" if known else f"{failed!r}"
        found = self.every((own, said))
        if failed is not None:
            raise failed
        for rank, (_, reason) in enumerate(found):
            if reason is not None:
                raise MetalossError(f"rank {rank}: {reason}")
        return [value for value, _ in found]  # type: ignore[misc]

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; without a wait for a device."""
        if self.size == 1:
            return flag
        asked = torch.full((), int(flag))
        with self.speaking():
            dist.all_reduce(asked, dist.ReduceOp.MAX, group=self._words())
        return bool(asked)

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Turn errors of what processes exchange within a block into a `LostRankError`."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            release(error)
            raise LostRankError(
                f"rank {self.rank} of {self.size} lost another process of this run, which ended or "
                f"did not answer in time ({reason(error)})"
            ) from error

    def _summed(self, flat: Tensor) -> Tensor:
        with self.speaking():
            return collectives.summed(flat, self.process_group())

    def _broadcast(self, flat: Tensor) -> Tensor:
        with self.speaking():
            return collectives.broadcast(flat, self.process_group())

    def _bounds(self, rank: int, total: int) -> tuple[int, int]:
        return rank * total // self.size, (rank + 1) * total // self.size

    def _words(self) -> dist.ProcessGroup | None:
        return self.process_group() if self.words is None else self.words()


ALONE = Ranks()


def reason(error: BaseException) -> str:
    """Return torch's message of an error, without its source position and its advice."""
    said = str(error).strip().split("\n")[0].split(". ")[0]
    return re.sub(r"^\[\S+:\d+\] ", "", said)


def _in_messages(values: list[Tensor], send: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Return what a collective makes of values that are sent as one message for each dtype."""
    found = list(values)
    for dtype in {value.dtype: None for value in values}:
        places = [index for index, value in enumerate(values) if value.dtype == dtype]
        flat = send(torch.cat([values[index].reshape(-1) for index in places]))
        parts = flat.split([values[index].numel() for index in places])
        for index, part in zip(places, parts, strict=True):
            found[index] = _like(values[index], part)
    return found


def _like(value: Tensor, flat: Tensor) -> Tensor:
    """Return flat numbers in the shape and the memory format of a value."""
    shaped = flat.view(value.shape)
    return shaped if value.is_contiguous() else torch.empty_like(value).copy_(shaped)
