"""The batches of many runs at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils import _pytree as pytree

from metaloss.core.batches.streams import BatchStream
from metaloss.errors import UnsupportedError
from metaloss.inner.fields import named
from metaloss.types import Batch


class StackedStream:
    """The streams of N members as one: ``stream[i]`` is (N, B, ...), with each member's own rows.

    Args:
        streams: One for each member. The number of rows may differ, the shape may not.

    Raises:
        UnsupportedError: If the members' batches differ in shape.
    """

    def __init__(self, streams: Sequence[BatchStream]) -> None:
        self._streams = list(streams)
        sizes = sorted({stream.size for stream in streams})
        shapes = {_shapes(stream.rows) for stream in streams}
        if len(sizes) > 1 or len(shapes) > 1:
            raise UnsupportedError(
                f"seeds={len(streams)}: the batches of the seeds differ in size or shape ("
                f"{', '.join(map(str, sizes))} rows): train them one at a time"
            )
        self._streamed = any(stream.streamed for stream in streams)
        if self._streamed:  # each member moves its own rows: only batches are stacked
            return
        rows = [stream.rows for stream in streams]
        # A task from Python is the same for every seed: store it once.
        self._shared = all(row is rows[0] for row in rows)
        self._rows = rows[0] if self._shared else _side_by_side(rows)

    def __getitem__(self, number: int) -> Batch:
        """Return batch ``number`` of every member."""
        if self._streamed:
            batches = [stream[number] for stream in self._streams]
            return _stacked(batches)
        chosen = self.indices(number)
        if self._shared:
            batch = Batch(self._rows.inputs[chosen], self._rows.targets[chosen])
        else:
            members = torch.arange(len(self._streams), device=chosen.device).unsqueeze(1)
            batch = Batch(self._rows.inputs[members, chosen], self._rows.targets[members, chosen])
        if not any(stream.augments for stream in self._streams):
            return batch
        # One member after the other, not vmapped: each task may have a different function.
        pairs = zip(self._streams, batch.inputs.unbind(), strict=True)
        inputs = [stream.augmented(inputs, number) for stream, inputs in pairs]
        return batch._replace(inputs=torch.stack(inputs))

    def indices(self, number: int) -> Tensor:
        """Return the row numbers (N, B) of batch ``number`` of every member."""
        return torch.stack([stream.indices(number) for stream in self._streams])


def _shapes(rows: Batch) -> tuple[Any, ...]:
    values = {**named(rows.inputs), "targets": rows.targets}
    return tuple((name, value.shape[1:]) for name, value in values.items())


def _stacked(batches: Sequence[Batch]) -> Batch:
    return pytree.tree_map(lambda *values: torch.stack(values), *batches)


def _side_by_side(rows: list[Batch]) -> Batch:
    """Stack the rows of the members. Rows that pad shorter ones are never drawn."""
    longest = max(len(row.targets) for row in rows)

    def padded(value: Tensor) -> Tensor:
        return pad(value, [0, 0] * (value.dim() - 1) + [0, longest - len(value)])

    return _stacked([pytree.tree_map(padded, row) for row in rows])
