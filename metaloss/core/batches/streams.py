"""Batches: random row numbers, and rows that are on the device or streamed to it."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.core.batches.streaming import ReadInputs, StreamedInputs, sent
from metaloss.core.compilation.program import Compiled
from metaloss.data.augment import CropFlipCutout
from metaloss.data.lazy import LazyRows
from metaloss.inner.keys import derive, generator, key_tensor
from metaloss.types import Batch


class BatchStream:
    """An endless stream of batches, addressed by number: ``stream[i]``.

    Every epoch is a new permutation that depends only on (seed, purpose, epoch), so that a resumed
    run uses the same rows as an uninterrupted one. The incomplete last batch of an epoch is left
    out, so that all batches have the same shape.

    Args:
        rows: All rows, on the device; or the inputs on the CPU, to be streamed.
        size: Rows of a batch. If there are fewer rows, each batch has all of them.
        seed: The run's seed.
        purpose: A name, different for each stream over the same rows.
        augment: The augmentation of the inputs of a batch, with a key for each batch; see `Task`.
        stream_to: The device, if the inputs are to be streamed there.

    Example:
        >>> rows = Batch(torch.arange(4).float(), torch.arange(4))
        >>> stream = BatchStream(rows, size=2, seed=0, purpose="train")
        >>> sorted([*stream[0].targets.tolist(), *stream[1].targets.tolist()])
        [0, 1, 2, 3]
    """

    def __init__(
        self,
        rows: Batch,
        *,
        size: int,
        seed: int,
        purpose: str,
        augment: Callable[[Tensor, Tensor], Tensor] | None = None,
        stream_to: torch.device | None = None,
    ) -> None:
        self.rows = rows
        self._count = len(rows.targets)
        self.size = min(size, self._count)
        self._seed, self._purpose = seed, purpose
        self._augment = augment
        self._orders: dict[int, tuple[Tensor, Tensor]] = {}
        self._streamed: StreamedInputs | ReadInputs | None = None
        if isinstance(rows.inputs, LazyRows):
            key = derive(seed, f"rows/{purpose}")
            there = stream_to or rows.targets.device
            self._streamed = ReadInputs(rows.inputs, self._on_the_cpu, key, there)
        elif stream_to is not None:
            self._streamed = StreamedInputs(rows.inputs, self._on_the_cpu, stream_to)

    def __getitem__(self, number: int) -> Batch:
        """Return batch ``number``, counted from 0 over all epochs."""
        chosen = self.indices(number)
        moved = self._streamed
        inputs = self.rows.inputs[chosen] if moved is None else moved(number)
        return Batch(self.augmented(inputs, number), self.rows.targets[chosen])

    @property
    def streamed(self) -> bool:
        """Whether the inputs are on the CPU and moved batch by batch."""
        return self._streamed is not None

    @property
    def augments(self) -> bool:
        """Whether batches are augmented."""
        return self._augment is not None

    def augmented(self, inputs: Tensor, number: int) -> Tensor:
        """Return the augmented inputs of batch ``number``."""
        if self._augment is None:
            return inputs
        purpose = f"augment/{self._purpose}"
        return self._augment(inputs, key_tensor(self._seed, purpose, number, device=inputs.device))

    def indices(self, number: int) -> Tensor:
        """Return the row numbers of batch ``number`` on the device of the targets."""
        return self._drawn(number)[1]

    def _on_the_cpu(self, number: int) -> Tensor:
        return self._drawn(number)[0]

    def _drawn(self, number: int) -> tuple[Tensor, Tensor]:
        """Return the row numbers of batch ``number``, on the CPU and on the targets' device."""
        epoch, place = divmod(number, self._count // self.size)
        if epoch not in self._orders:
            draw = generator(self._seed, f"batches/{self._purpose}", epoch)
            order = torch.randperm(self._count, generator=draw)
            # Keep two epochs, because streamed batches are drawn one in advance.
            last = list(self._orders.items())[-1:]
            there = sent(order, self.rows.targets.device)
            self._orders = dict([*last, (epoch, (order, there))])
        part = slice(place * self.size, (place + 1) * self.size)
        here, there = self._orders[epoch]
        return here[part], there[part]


@cache
def in_one_launch(augment: CropFlipCutout) -> Compiled:
    """Return the augmentation as one program, which all streams of a process share.

    On a GPU, launching its forty small operations takes longer than computing them.
    """
    return Compiled(augment)


# Free it before modules are deleted; a CUDA graph raises an error otherwise.
atexit.register(in_one_launch.cache_clear)


def concatenated(first: Batch, second: Batch) -> Batch:
    """Return the rows of both batches."""
    inputs: Any = first.inputs
    if isinstance(inputs, LazyRows) or isinstance(second.inputs, LazyRows):
        lazy = inputs if isinstance(inputs, LazyRows) else LazyRows.of(inputs)
        inputs = lazy.joined(second.inputs)
    else:
        inputs = pytree.tree_map(lambda *parts: torch.cat(parts), inputs, second.inputs)
    return Batch(inputs, torch.cat((first.targets, second.targets)))
