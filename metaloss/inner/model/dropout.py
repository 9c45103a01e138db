"""Dropout with a mask that depends only on a key."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metaloss.inner.keys import uniform
from metaloss.inner.processes.ranks import Share


class KeyedDropout:
    """The forward pass of an ``nn.Dropout`` with a mask that depends on (key, module, call).

    The module's rate and mode are read at every call.

    Attributes:
        key: 0-d int64, set before each pass.
        calls: The number of calls so far in the pass.
        share: The process's rows of the batch; None: all rows.
        rows: (M,) row numbers in the whole batch, where a pass has some of them.
    """

    def __init__(self, module: nn.Dropout, index: int) -> None:
        self.module, self._index = module, index
        self.key: Tensor | None = None
        self.calls = 0
        self.share: Share | None = None
        self.rows: Tensor | None = None

    def begin(self, key: Tensor | None, share: Share | None, rows: Tensor | None) -> None:
        """Begin a forward pass."""
        self.key, self.share, self.rows, self.calls = key, share, rows, 0

    def forward(self, x: Tensor) -> Tensor:
        """Return x with the mask applied."""
        p = self.module.p
        if not self.module.training or p == 0:
            return x
        if self.key is None:
            raise ValueError("a model with dropout needs a key in train mode")
        salt = self._index * 2**16 + self.calls
        self.calls += 1
        share = self.share
        # Rows are the first dimension: skip the numbers of the rows before this process's own.
        first = 0 if share is None else share.first * (x.numel() // share.rows)
        keep = uniform(self.key, salt, x.shape, first, self._rows_of(x)) >= p
        # With p = 1 the result is 0, and not 0 / 0.
        scale = 0.0 if p == 1 else 1 / (1 - p)
        if self.module.inplace:
            return x.mul_(keep.to(x.dtype)).mul_(scale)
        return x * keep.to(x.dtype) * scale

    def _rows_of(self, x: Tensor) -> Tensor | None:
        """Return the row numbers of x (n·M, ...), which may hold n parts of each row of a batch."""
        if self.rows is None or len(x) == len(self.rows):
            return self.rows
        parts = len(x) // len(self.rows)
        within = torch.arange(parts, device=x.device)
        return (self.rows.unsqueeze(1) * parts + within).reshape(-1)


def keyed_dropouts(module: nn.Module) -> list[KeyedDropout]:
    """Return one for every ``nn.Dropout`` in a module; a shared one counts once."""
    # A subclass may compute something else.
    found = [part for part in module.modules() if type(part) is nn.Dropout]
    return [KeyedDropout(part, index) for index, part in enumerate(found)]
