"""Operations of torch without second derivatives, computed by others that have them.

The values are those of torch's own operations up to rounding. Other operations that
lack a derivative are found by `metaloss.meta_optimizers.probe`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Replace ``nn.EmbeddingBag``'s, ``nn.Hardsigmoid``'s and ``weight_norm``'s operations.

    Example:
        >>> x = torch.tensor([1.0, 4.0], requires_grad=True)
        >>> with twice_differentiable():
        ...     slope = torch.autograd.grad(F.hardsigmoid(x).sum(), x, create_graph=True)[0]
        >>> slope.grad_fn is None, slope
        (False, tensor([0.1667, 0.0000], grad_fn=<HardtanhBackwardBackward0>))
    """
    try:
        for owner, name, _, ours in _REPLACED:
            setattr(owner, name, ours)
        yield
    finally:
        for owner, name, theirs, _ in _REPLACED:
            setattr(owner, name, theirs)


def _hardsigmoid(x: Tensor) -> Tensor:
    return F.relu6(x + 3) / 6


def _hardsigmoid_(x: Tensor) -> Tensor:
    return x.copy_(_hardsigmoid(x))


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[Tensor, ...]:
    """Return the sums, means (mode 1) or maxima (mode 2) of the rows of each bag, (bags, D).

    Args:
        weight: (V, D).
        indices: (N,), the rows of all bags.
        offsets: (bags,), where each bag begins; (bags + 1,) with ``include_last_offset``.
        scale_grad_by_freq: Not possible here: torch's own operation is called.
        mode: 0, 1 or 2.
        sparse: Ignored.
        per_sample_weights: (N,), with mode 0.
        include_last_offset: See ``offsets``.
        padding_idx: The row that does not count.
    """
    if scale_grad_by_freq:
        found: tuple[Tensor, ...] = _THEIRS(
            weight, indices, offsets, True, mode, sparse, per_sample_weights, include_last_offset
        )
        return found
    count = len(offsets) - include_last_offset
    places = torch.arange(len(indices), device=indices.device)
    bags = torch.searchsorted(offsets[:count].long().contiguous(), places, right=True) - 1
    if padding_idx is not None:  # into a bag that is left out
        bags = torch.where(indices == padding_idx % len(weight), count, bags)
    rows = weight.index_select(0, indices)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    empty = rows.new_zeros(count + 1, rows.shape[1])
    if mode == 2:
        held = bags.unsqueeze(-1).expand_as(rows)
        values = empty.scatter_reduce(0, held, rows, "amax", include_self=False)
    else:
        values = empty.index_add(0, bags, rows)
    if mode == 1:
        sizes = rows.new_zeros(count + 1).index_add(0, bags, rows.new_ones(len(indices)))
        values = values / sizes.clamp(min=1).unsqueeze(-1)
    return values[:count], bags, bags, bags


_THEIRS: Callable[..., Any] = torch.embedding_bag
_OLD_WEIGHT_NORM = sys.modules["torch.nn.utils.weight_norm"]
_REPLACED: tuple[tuple[Any, str, Any, Callable[..., Any]], ...] = tuple(
    (owner, name, getattr(owner, name), ours)
    for owner, name, ours in (
        (torch, "embedding_bag", _embedding_bag),
        (torch, "_weight_norm", _weight_norm),
        (_OLD_WEIGHT_NORM, "_weight_norm", _weight_norm),
        (torch._C._nn, "hardsigmoid", _hardsigmoid),
        (torch._C._nn, "hardsigmoid_", _hardsigmoid_),
    )
)
