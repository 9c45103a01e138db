"""Whether the processes that train together hold the same, and compute the same of their rows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.errors import MetalossError, UnsupportedError
from metaloss.inner.processes.ranks import Ranks
from metaloss.inner.sharded import ShardedProblem
from metaloss.types import Batch, InnerState


def check_same(ranks: Ranks, seen: Mapping[str, str]) -> None:
    """Raise, in every process, unless what each holds by name has the same digest everywhere."""
    first, *others = ranks.every(dict(seen))
    for rank, other in enumerate(others, 1):
        for name, digest in first.items():
            if other[name] != digest:
                raise MetalossError(
                    f"rank {rank} has another {name} than rank 0: every process must be given the "
                    "same (seed what you build)"
                )


@torch.no_grad()
def check_rows(
    problem: ShardedProblem, state: InnerState, batch: Batch, key: Tensor, tolerance: float = 0.02
) -> None:
    """Try the model on the first rows of a batch, as a whole and in shares.

    Args:
        problem: The problem in many processes.
        state: What the model begins with.
        batch: The whole batch.
        key: Decides the dropout masks.
        tolerance: How far both may differ, as a part of the largest value: rounding stays below
            (convolutions in TF32 included), rows that depend on each other are far above.

    Raises:
        UnsupportedError: In every process, if the shares give something else than the whole.
    """
    ranks = problem.ranks
    refused = f"the model cannot be trained by {ranks.size} processes: %s; train it by one"
    few = slice(8 * ranks.size)
    batch = batch._replace(inputs=batch.inputs[few], targets=batch.targets[few])
    whole = problem.model(state.params, state.buffers, batch.inputs, key=key)
    if problem.model.foreign_randomness:
        raise UnsupportedError(refused % "it draws random numbers outside of nn.Dropout")
    shares = problem.predict(state.params, state.buffers, batch, key)
    pairs = zip(pytree.tree_leaves(whole), pytree.tree_leaves(shares), strict=True)
    both = [(a.double(), b.double()) for a, b in pairs if a.numel()]
    differ = any(bool((a - b).abs().max() > tolerance * a.abs().max()) for a, b in both)
    if ranks.any(differ):
        raise UnsupportedError(
            refused % "its outputs or buffers depend on which rows a process sees (only "
            "nn.BatchNorm and nn.Dropout may look across rows)"
        )
