"""An inner problem in several processes, each of which runs the model on its rows of a batch."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from metaloss.inner.forward import rows_of
from metaloss.inner.problem import InnerProblem
from metaloss.inner.processes.exchange import copy, gather
from metaloss.inner.processes.ranks import Ranks
from metaloss.types import Batch, RowSample, Tensors

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ShardedProblem(InnerProblem):
    """One problem in N processes.

    All processes have the same θ, φ and batches. The model, which is nearly all of the work, gets
    the process's own rows, and its outputs, which are small, are gathered. So all losses are losses
    of the whole batch, which need not be means over rows, and the derivatives of all engines are
    exact; see :mod:`metaloss.inner.processes.exchange`.

    Attributes:
        ranks: The processes.
    """

    ranks: Ranks

    def predict(
        self,
        params: Tensors,
        buffers: Tensors,
        batch: Batch,
        key: Tensor,
        sample: RowSample | None = None,
    ) -> tuple[Tensor, Tensors]:
        """Return the whole batch's raw outputs (B, C, *) in train mode, and the new buffers."""
        share = self.ranks.share(len(batch.targets if sample is None else sample.rows))
        rows: Any = slice(share.first, share.first + share.rows)
        if sample is not None:
            rows = sample.rows[rows]
            sample = sample._replace(rows=rows)
        own, inputs = copy(params, self.ranks), rows_of(batch.inputs, rows)
        outputs, buffers = self.model(own, buffers, inputs, key=key, share=share, sample=sample)
        return gather(outputs, share), buffers

    def broadcast(self, values: T) -> T:
        """Return process 0's values."""
        # In principle they are equal. But the order of some sums on a GPU is random, and a
        # difference in rounding would grow.
        return self.ranks.broadcast(values)

    def exchanging(self) -> AbstractContextManager[None]:
        """Return a block in which errors of what a program exchanges are those of lost ranks."""
        return self.ranks.speaking()
