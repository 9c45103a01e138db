"""An inner problem whose model works in many processes, each on its rows of every batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from metaloss.inner.problem import InnerProblem
from metaloss.inner.processes.exchange import copy, gather
from metaloss.inner.processes.ranks import Ranks
from metaloss.types import Batch, Tensors

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
        self, params: Tensors, buffers: Tensors, batch: Batch, key: Tensor
    ) -> tuple[Tensor, Tensors]:
        """Return the whole batch's raw outputs (B, C, *) in train mode, and the new buffers."""
        share = self.ranks.share(len(batch.inputs))
        rows = batch.inputs[share.first : share.first + share.rows]
        own = copy(params, self.ranks)
        outputs, buffers = self.model(own, buffers, rows, key=key, share=share)
        return gather(outputs, share), buffers

    def broadcast(self, values: T) -> T:
        """Return process 0's values."""
        # They are the same by design. But some sums on a GPU are rounded as they come, and what
        # differs by a bit would part the processes in the end.
        return self.ranks.broadcast(values)
