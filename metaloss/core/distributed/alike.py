"""Checks that all processes have the same values and compute the same results."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.errors import MetalossError, UnsupportedError
from metaloss.inner.forward import rows_of
from metaloss.inner.processes.ranks import Ranks
from metaloss.inner.sharded import ShardedProblem
from metaloss.types import Batch, InnerState


def check_same(ranks: Ranks, seen: Mapping[str, str]) -> None:
    """Raise in every process if a value with the same name has different digests."""
    first, *others = ranks.every(dict(seen))
    for rank, other in enumerate(others, 1):
        for name, digest in first.items():
            if other[name] != digest:
                raise MetalossError(
                    f"rank {rank} has another {name} than rank 0: every process must have the "
                    "same (set a seed before you build it)"
                )


@torch.no_grad()
def check_rows(
    problem: ShardedProblem, state: InnerState, batch: Batch, key: Tensor, tolerance: float = 0.02
) -> None:
    """Compare the model on the first rows of a whole batch with the model on parts of these rows.

    ``tolerance`` is the largest allowed difference, relative to the largest value. Rounding errors
    are smaller (also of convolutions in TF32), errors of dependent rows are much larger.

    Raises:
        UnsupportedError: In every process, if the results differ.
    """
    ranks = problem.ranks
    refused = f"the model cannot be trained by {ranks.size} processes: %s; train it by one"
    few = slice(8 * ranks.size)
    batch = batch._replace(inputs=rows_of(batch.inputs, few), targets=batch.targets[few])
    whole = problem.model(state.params, state.buffers, batch.inputs, key=key)
    if problem.model.foreign_randomness:
        raise UnsupportedError(refused % "it draws random numbers outside of nn.Dropout")
    shares = problem.predict(state.params, state.buffers, batch, key)
    pairs = zip(pytree.tree_leaves(whole), pytree.tree_leaves(shares), strict=True)
    both = [(a.double(), b.double()) for a, b in pairs if a.numel()]
    differ = any(bool((a - b).abs().max() > tolerance * a.abs().max()) for a, b in both)
    if ranks.any(differ):
        raise UnsupportedError(
            refused % "its outputs or buffers depend on which rows a process has (only "
            "nn.BatchNorm and nn.Dropout may use several rows)"
        )
