r"""Derivatives of what processes exchange: four linear maps, two pairs of transposes.

All processes run one program. A value is of one of three kinds: *whole*, the same in every process
(θ, φ, a loss; outputs that were gathered); *rows*, of which each process has its block; a *part*,
of which each has a term of a sum. The cotangent of a whole value is whole, that of rows is rows;
that of a value that a process uses by itself is a part.

======== ============== ===================== ============== =========
map      from → to      what it does          its transpose  tangent
======== ============== ===================== ============== =========
gather   rows → whole   all blocks, in order  take           gather
take     whole → rows   the process's block   gather         take
copy     whole → own    nothing               add            copy
add      part → whole   the sum over all      copy           add
======== ============== ===================== ============== =========

Each map is linear, so that it is its own derivative in forward mode and its transpose is the
derivative in reverse mode; the table is closed under both, hence derivatives of any order are
right. From outputs Z = gather(f(copy(θ), X_r)) follows what is reduced where:

- ∇_θ L(Z): ∂L/∂Z is whole, take gives each process its rows g_r, the model J_rᵀ g_r, and the
  transpose of copy adds: Σ_r J_rᵀ g_r. The adjoint of the judgement and the Hessian-vector
  product take the same way.
- J v = gather(J_r v): rows of the tangent, nothing to add.
- L, the task loss and ∂/∂φ of anything: functions of whole values, computed alike in every
  process. No mean over processes is taken, so that a loss need not be a mean over rows.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function

from metaloss.inner.processes.ranks import Ranks, Share
from metaloss.types import Tensors

# The rules call each other's ``apply``, never a collective: that is what makes them differentiable
# in their turn. ``setup_context`` is apart from ``forward``, as torch.func needs it.


def gather(rows: Tensor, share: Share) -> Tensor:
    """Return the whole (total, ...) of each process's rows."""
    return _Gather.apply(rows, share)


def copy(values: Tensors, ranks: Ranks) -> Tensors:
    """Return whole values for a process's own use: their gradients are added up over all."""
    return dict(zip(values, _Copy.apply(ranks, *values.values()), strict=True))


class _Gather(Function):
    @staticmethod
    def forward(rows: Tensor, share: Share) -> Tensor:
        return share.ranks.gathered(rows, share.total)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.share = inputs[1]

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return _Take.apply(cotangents[0], ctx.share), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _Gather.apply(tangents[0], ctx.share)


class _Take(Function):
    @staticmethod
    def forward(whole: Tensor, share: Share) -> Tensor:
        return whole[share.first : share.first + share.rows].clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.share = inputs[1]

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return _Gather.apply(cotangents[0], ctx.share), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _Take.apply(tangents[0], ctx.share)


class _Copy(Function):
    @staticmethod
    def forward(ranks: Ranks, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(value.clone() for value in values)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.ranks = inputs[0]

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return None, *_Add.apply(ctx.ranks, *cotangents)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _Copy.apply(ctx.ranks, *tangents[1:])


class _Add(Function):
    @staticmethod
    def forward(ranks: Ranks, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(ranks.summed(list(values)))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.ranks = inputs[0]

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return None, *_Copy.apply(ctx.ranks, *cotangents)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _Add.apply(ctx.ranks, *tangents[1:])
