"""The processes that share the rows of a run's batches, and what they tell each other."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import ReferenceType

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.errors import MetalossError
from metaloss.inner.processes.group_references import release

T = TypeVar("T")


class LostRankError(MetalossError):
    """Another process of the run ended, or did not answer in time."""

    exit_status = 1


@dataclass(frozen=True, kw_only=True)
class Share:
    """A process's rows of a batch: ``rows`` of ``total``, from row ``first`` on."""

    first: int
    rows: int
    total: int
    ranks: Ranks


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those of a run; by default it is alone, and every method trivial.

    Every method but :meth:`share` must be called by all processes, in the same order.

    Attributes:
        rank: From 0 on; process 0 alone writes files and tells trackers.
        size: The number of processes.
        group: The process group that they speak through; None: torch's default one. A weak
            reference: who made a group ends it (`group_references`).
        words: Another for what is not on a device, where that one has no CPU backend.

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
        """Whether this is the process that writes."""
        return self.rank == 0

    def process_group(self) -> dist.ProcessGroup | None:
        """Return the group that the processes speak through, None for the default one."""
        return None if self.group is None else self.group()

    def share(self, total: int) -> Share:
        """Return this process's rows of ``total``: blocks in order, sizes a row apart at most."""
        first, end = self._bounds(self.rank, total)
        return Share(first=first, rows=end - first, total=total, ranks=self)

    def sizes(self, total: int) -> list[int]:
        """Return how many of ``total`` rows each process has, by rank."""
        bounds = [self._bounds(rank, total) for rank in range(self.size)]
        return [end - first for first, end in bounds]

    def gathered(self, rows: Tensor, total: int) -> Tensor:
        """Return all rows (total, ...) in their order, from each process's own share."""
        return self.joined(rows, self.sizes(total))

    def joined(self, rows: Tensor, sizes: list[int]) -> Tensor:
        """Return all rows (sum of sizes, ...) by rank; each process has ``sizes[rank]`` of them."""
        # Collectives want blocks of one size: shorter ones are filled up, and cut again.
        block = rows.new_zeros(max(sizes), *rows.shape[1:])
        block[: len(rows)] = rows
        blocks = list(rows.new_empty(self.size, *block.shape))
        self._speak(lambda: dist.all_gather(blocks, block, group=self.process_group()))
        return torch.cat([one[:size] for one, size in zip(blocks, sizes, strict=True)])

    def summed(self, values: list[Tensor]) -> list[Tensor]:
        """Return the sums over all processes: one message for each type among the values."""
        found: list[Tensor] = list(values)
        for dtype in {value.dtype: None for value in values}:
            places = [index for index, value in enumerate(values) if value.dtype == dtype]
            flat = torch.cat([values[index].reshape(-1) for index in places])
            self._speak(lambda flat=flat: dist.all_reduce(flat, group=self.process_group()))  # type: ignore[misc]
            parts = flat.split([values[index].numel() for index in places])
            for index, part in zip(places, parts, strict=True):
                found[index] = _like(values[index], part)
        return found

    def broadcast(self, tree: T) -> T:
        """Return process 0's values, bit by bit, of a tree that has the same shape everywhere."""
        leaves, spec = pytree.tree_flatten(tree)
        places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        if self.size == 1 or not places:
            return tree
        # As bytes: one message for all types.
        raw = [leaves[index].detach().reshape(-1).view(torch.uint8) for index in places]
        flat = torch.cat(raw)
        self._speak(lambda: dist.broadcast(flat, 0, group=self.process_group()))
        for index, part in zip(places, flat.split([len(one) for one in raw]), strict=True):
            # A copy: a view as another type must begin at a multiple of its size.
            leaves[index] = _like(leaves[index], part.clone().view(leaves[index].dtype))
        return pytree.tree_unflatten(leaves, spec)

    def same(self, value: T) -> T:
        """Return process 0's plain value."""
        return self.every(value)[0]

    def every(self, value: T) -> list[T]:
        """Return each process's plain value, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        self._speak(lambda: dist.all_gather_object(found, value, group=self._words()))
        return found

    def together(self, call: Callable[[], T]) -> list[T]:
        """Return what a call comes to in each process, by rank; an error in one is raised in all.

        Raises:
            MetalossError: Where another process has failed; the first of them is told of.
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
        """Return whether the flag is set in one of the processes; on the CPU, no device waits."""
        if self.size == 1:
            return flag
        asked = torch.full((), int(flag))
        self._speak(lambda: dist.all_reduce(asked, dist.ReduceOp.MAX, group=self._words()))
        return bool(asked)

    def _bounds(self, rank: int, total: int) -> tuple[int, int]:
        return rank * total // self.size, (rank + 1) * total // self.size

    def _words(self) -> dist.ProcessGroup | None:
        return self.process_group() if self.words is None else self.words()

    def _speak(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except RuntimeError as error:
            release(error)
            raise LostRankError(
                f"rank {self.rank} of {self.size} lost another process of this run, which ended or "
                f"did not answer in time ({reason(error)})"
            ) from error


ALONE = Ranks()


def reason(error: BaseException) -> str:
    """Return what torch says of an error, without where in its own code, and its advice."""
    said = str(error).strip().split("\n")[0].split(". ")[0]
    return re.sub(r"^\[\S+:\d+\] ", "", said)


def _like(value: Tensor, flat: Tensor) -> Tensor:
    """Return flat numbers in a value's shape, and in its order in memory (channels last)."""
    shaped = flat.view(value.shape)
    return shaped if value.is_contiguous() else torch.empty_like(value).copy_(shaped)
