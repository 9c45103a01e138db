"""Rows that do not fit on the device: the next batch is gathered on the CPU and moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.contracts import Task
from metaloss.data.lazy import LazyRows
from metaloss.inner.fields import as_inputs, leaves
from metaloss.inner.keys import derive
from metaloss.types import Batch

# Rows stay on the CPU if they need more than this share of the device's free memory.
_SHARE = 0.5


class StreamedInputs:
    """Batches of inputs by number: ``streamed(n)`` is ``inputs[indices(n)]`` on the device.

    While batch n is used, a thread gathers batch n + 1 in pinned memory and copies it, so that
    neither the device nor the loop waits. Batches may be read in any order; only the next number is
    prepared in advance.

    ``inputs`` are all rows, on the CPU, as are the ``indices`` of batch n.

    Example:
        >>> streamed = StreamedInputs(torch.arange(4.0), lambda n: torch.tensor([n]), "cpu")
        >>> streamed(2), streamed(3), streamed(0)
        (tensor([2.]), tensor([3.]), tensor([0.]))
    """

    def __init__(
        self, inputs: Tensor, indices: Callable[[int], Tensor], device: torch.device | str
    ) -> None:
        self._inputs, self._indices, self._device = inputs, indices, torch.device(device)
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._ahead: tuple[int, Future[Tensor]] | None = None

    def __call__(self, number: int) -> Tensor:
        """Return the inputs of batch ``number`` on the device."""
        if self._ahead is None or self._ahead[0] != number:
            self._ahead = self._begin(number)
        batch = self._ahead[1].result()
        self._ahead = self._begin(number + 1)
        return batch

    def _begin(self, number: int) -> tuple[int, Future[Tensor]]:
        # Rows are chosen here, not in the thread, because a stream caches the order of its epoch.
        return number, self._pool.submit(self._gathered, self._indices(number))

    def _gathered(self, chosen: Tensor) -> Tensor:
        return sent(self._inputs[chosen], self._device)


class ReadInputs:
    """Batches of lazily read inputs by number: ``read(n)`` is batch n on the device.

    The workers read ahead, as long as batches are asked for in their order. The random numbers of
    transforms depend only on the ``key``, the number of the batch and the place in it.
    """

    def __init__(
        self,
        inputs: LazyRows,
        indices: Callable[[int], Tensor],
        key: int,
        device: torch.device,
    ) -> None:
        self._inputs, self._indices, self._key, self._device = inputs, indices, key, device
        self._batches: Iterator[Batch] = iter(())
        self._last: tuple[int, Tensor] | None = None

    def __call__(self, number: int) -> Tensor:
        """Return the inputs of batch ``number`` on the device."""
        if self._last is None or self._last[0] != number:
            if self._last is None or self._last[0] + 1 != number:
                self._batches = self._inputs.read(self._asked(number))
            self._last = number, sent(next(self._batches).inputs, self._device)
        return self._last[1]

    def _asked(self, number: int) -> Iterator[list[tuple[int, int]]]:
        for one in count(number):
            yield self._inputs.asked(self._indices(one), derive(self._key, "batch", one))


def sent(values: Any, device: torch.device) -> Any:
    """Copy a tensor or fields from the CPU to the device, without waiting for a GPU."""
    if device.type == "cuda":
        values = pytree.tree_map(torch.Tensor.pin_memory, values)
    return values.to(device, non_blocking=True)


def placed(task: Task, device: torch.device) -> Task:
    """Return the task with its rows on the device and with ``stream`` set.

    Streamed inputs stay on the CPU, and if some are read lazily, all are streamed. Targets are
    always moved.
    """
    lazy = any(isinstance(one.inputs, LazyRows) for one in _parts(task))
    stream = True if lazy else task.stream
    if stream is None:
        stream = device.type == "cuda" and _size(task) > _SHARE * torch.cuda.mem_get_info(device)[0]

    def part(rows: Batch) -> Batch:
        inputs = as_inputs(rows.inputs)
        return Batch(inputs if stream else inputs.to(device), rows.targets.to(device))

    train, valid = part(task.train), part(task.valid)
    test = valid if task.test is task.valid else part(task.test)
    jury = task.jury and part(task.jury)
    return replace(task, stream=stream, train=train, valid=valid, test=test, jury=jury)


def _parts(task: Task) -> list[Batch]:
    return [task.train, task.valid, task.test, *([task.jury] if task.jury else [])]


def _size(task: Task) -> int:
    every = (one for part in _parts(task) for one in leaves(as_inputs(part.inputs)))
    return sum(one.numel() * one.element_size() for one in every)
