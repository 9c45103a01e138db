r"""Derivatives of what processes exchange: four linear maps, two pairs of transposes.

All processes run the same program. There are three kinds of values: *whole*, the same in every
process (θ, φ, a loss, gathered outputs); *rows*, of which each process has a block; a *part*, where
each process has a term of a sum. The cotangent of a whole value is whole and that of rows is rows.
The cotangent of a whole value that each process uses separately is a part.

======== ============== ===================== ============== =========
map      from → to      what it does          its transpose  tangent
======== ============== ===================== ============== =========
gather   rows → whole   all blocks, in order  take           gather
take     whole → rows   the process's block   gather         take
copy     whole → own    nothing               add            copy
add      part → whole   the sum over all      copy           add
======== ============== ===================== ============== =========

The maps are linear. So each map is its own derivative in forward mode, and its transpose is the
derivative in reverse mode. The table is closed under both, so that derivatives of any order are
right. For outputs Z = gather(f(copy(θ), X_r)):

- ∇_θ L(Z): ∂L/∂Z is whole, take gives each process its rows g_r, the model gives J_rᵀ g_r, and the
  transpose of copy adds them: Σ_r J_rᵀ g_r. The gradient of the task loss and the Hessian-vector
  product are computed in the same way.
- J v = gather(J_r v): rows of the tangent, nothing to add.
- L, the task loss and derivatives in φ: functions of whole values, the same in every process. There
  is not a mean over processes, so that a loss need not be a mean over rows.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function

from metaloss.inner.processes.ranks import Ranks, Share
from metaloss.types import Tensors

# The derivatives call each other's ``apply`` and no collective, so that they are differentiable
# too. torch.func needs ``setup_context`` separate from ``forward``.


def gather(rows: Tensor, share: Share) -> Tensor:
    """Return the rows of all processes (total, ...)."""
    return _Gather.apply(share, rows)


def copy(values: Tensors, ranks: Ranks) -> Tensors:
    """Return whole values for separate use; their gradients are summed over processes."""
    return dict(zip(values, _Copy.apply(ranks, *values.values()), strict=True))


class _Map(Function):
    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.between = inputs[0]


class _Gather(_Map):
    @staticmethod
    def forward(share: Share, rows: Tensor) -> Tensor:
        return share.ranks.gathered(rows, share.total)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return None, _Take.apply(ctx.between, *cotangents)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _Gather.apply(ctx.between, *tangents[1:])


class _Take(_Map):
    @staticmethod
    def forward(share: Share, whole: Tensor) -> Tensor:
        return whole[share.first : share.first + share.rows].clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return None, _Gather.apply(ctx.between, *cotangents)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _Take.apply(ctx.between, *tangents[1:])


class _Copy(_Map):
    @staticmethod
    def forward(ranks: Ranks, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(value.clone() for value in values)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return None, *_Add.apply(ctx.between, *cotangents)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _Copy.apply(ctx.between, *tangents[1:])


class _Add(_Map):
    @staticmethod
    def forward(ranks: Ranks, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(ranks.summed(list(values)))

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return None, *_Copy.apply(ctx.between, *cotangents)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _Add.apply(ctx.between, *tangents[1:])
