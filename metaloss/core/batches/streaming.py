"""Rows that do not fit on the device: batches are gathered on the CPU, one ahead, and moved."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from metaloss.contracts import Task
from metaloss.types import Batch

# Rows that need more than this share of the device's free memory stay on the CPU.
_SHARE = 0.5


class StreamedInputs:
    """Batches of inputs by number: ``streamed(n)`` is ``inputs[indices(n)]`` on the device.

    While batch n is used, a thread gathers batch n + 1 into pinned memory and sends it, so that
    neither the device nor the loop waits. The numbers may come in any order; only the next one is
    gathered ahead.

    Args:
        inputs: All rows, on the CPU.
        indices: Which rows batch n has; on the CPU.
        device: Where batches go.

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
        # Rows are chosen here and not in the thread: a stream remembers its epoch's order.
        return number, self._pool.submit(self._gathered, self._indices(number))

    def _gathered(self, chosen: Tensor) -> Tensor:
        return sent(self._inputs[chosen], self._device)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Return values of the CPU on the device; a GPU is not waited for."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def placed(task: Task, device: torch.device) -> Task:
    """Return the task with its rows on the device; with ``stream`` decided.

    Inputs that are streamed stay on the CPU; targets never do.
    """
    stream = task.stream
    if stream is None:
        stream = device.type == "cuda" and _size(task) > _SHARE * torch.cuda.mem_get_info(device)[0]

    def part(rows: Batch) -> Batch:
        return Batch(rows.inputs if stream else rows.inputs.to(device), rows.targets.to(device))

    train, valid, test = part(task.train), part(task.valid), part(task.test)
    return replace(task, stream=stream, train=train, valid=valid, test=test)


def _size(task: Task) -> int:
    parts = (task.train, task.valid, task.test)
    return sum(part.inputs.numel() * part.inputs.element_size() for part in parts)
