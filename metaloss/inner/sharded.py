"""An inner problem whose model works in many processes, each on its rows of every batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from metaloss.inner.problem import InnerProblem, rows_of
from metaloss.inner.processes.exchange import copy, gather
from metaloss.inner.processes.ranks import Ranks
from metaloss.types import Batch, RowSample, Tensors

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ShardedProblem(InnerProblem):
    """One problem in N processes: what every one of them computes is the whole batch's.

    Every process holds the same θ, φ and batches. The model, which is nearly all of the work, sees
    the process's own rows; its outputs, which are small, are gathered. So every loss is of the
    whole batch, whatever it does with its rows, and every engine's derivatives are exact: see
    :mod:`metaloss.inner.processes.exchange`.

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
        # They are the same by design. But some sums on a GPU are rounded as they come, and what
        # differs by a bit would part the processes in the end.
        return self.ranks.broadcast(values)
