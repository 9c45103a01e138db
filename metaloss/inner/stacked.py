"""Several independent inner problems as one: every tensor has a leading axis of members."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree as pytree

from metaloss.inner.keys import sampled_rows
from metaloss.inner.problem import InnerProblem
from metaloss.types import Batch, RowSample, Tensors


@dataclass(frozen=True, kw_only=True)
class StackedProblem(InnerProblem):
    """N members that differ only in the values of their tensors, in one vectorised program.

    θ, buffers, optimizer state, φ, keys and losses are (N, ...). The members are independent, so
    that the gradient of the sum of their losses contains the gradient of each.

    Attributes:
        shares_batches: Whether all members use the same batches and keys, without a member axis.
    """

    shares_batches: bool = False

    @property
    def _axis(self) -> int | None:
        """The axis of members in batches and keys; None: all members have the same ones."""
        return None if self.shares_batches else 0

    def vmap_members(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function applied to every member's slice of its arguments."""
        return _quietly(vmap(function))

    def predict(
        self,
        params: Tensors,
        buffers: Tensors,
        batch: Batch,
        key: Tensor,
        sample: RowSample | None = None,
    ) -> tuple[Tensor, Tensors]:
        """Return the raw outputs (N, B, C, *) in train mode, and the new buffers."""
        given, axes = (params, buffers, batch, key), (0, 0, self._axis, self._axis)
        if sample is None:
            return vmap(super().predict, in_dims=axes)(*given)
        own, total = super().predict, sample.total

        def predicted(
            params: Tensors,
            buffers: Tensors,
            batch: Batch,
            key: Tensor,
            rows: Tensor,
            known: Tensors,
        ) -> tuple[Tensor, Tensors]:
            return own(params, buffers, batch, key, RowSample(rows, total, known))

        along = dict.fromkeys(sample.moments, 0)
        return vmap(predicted, in_dims=(*axes, self._axis, along))(
            *given, sample.rows, sample.moments
        )

    def learned_loss(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return every member's L_φ (N,)."""
        return vmap(super().learned_loss, in_dims=(0, 0, self._axis))(phi, outputs, targets)

    def draw_rows(self, key: Tensor, targets: Tensor, share: float) -> tuple[Tensor, int]:
        """Return every member's rows (N, M), or (M,) where all members see the same; and B."""
        total = len(targets if self.shares_batches else targets[0])
        draw = partial(sampled_rows, share=share, total=total)
        return draw(key) if self.shares_batches else vmap(draw)(key), total

    def sample_loss(self, phi: Tensors, outputs: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """Return every member's estimate of L_φ (N,)."""
        axes = (0, 0, self._axis, self._axis)
        return vmap(super().sample_loss, in_dims=axes)(phi, outputs, targets, rows)

    def sample_task_loss(self, outputs: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """Return every member's estimate of the task loss (N,)."""
        axes = (0, self._axis, self._axis)
        return vmap(super().sample_task_loss, in_dims=axes)(outputs, targets, rows)

    def task_loss_of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return every member's task loss (N,)."""
        return vmap(super().task_loss_of, in_dims=(0, self._axis))(outputs, targets)

    def noted(self, outputs: Tensor, targets: Tensor) -> Tensor | None:
        """Return every member's notes (N, B, 3)."""
        if self.notes is None:
            return None
        return vmap(super().noted, in_dims=(0, self._axis))(outputs, targets)


def stack(trees: list[Any]) -> Any:
    """Return one tree of (N, ...) tensors for N trees of the same structure."""
    return pytree.tree_map(
        lambda *leaves: None if leaves[0] is None else torch.stack(leaves), *trees
    )


def member(tree: Any, index: int) -> Any:
    """Return the tree of one member; its tensors are views."""
    return pytree.tree_map(lambda leaf: None if leaf is None else leaf[index], tree)


def _quietly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Suppress the warning that ``vmap`` loops over an operation, as for torchopt's Adam."""

    def quiet(*arguments: Any) -> Any:
        torch._C._functorch._set_vmap_fallback_warning_enabled(False)  # type: ignore[attr-defined]
        try:
            return function(*arguments)
        finally:
            torch._C._functorch._set_vmap_fallback_warning_enabled(True)  # type: ignore[attr-defined]

    return quiet
