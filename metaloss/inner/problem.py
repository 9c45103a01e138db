"""One inner step, shared by the trainer, every engine and every search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metaloss.contracts import InnerOptimizer
from metaloss.inner.functional import FunctionalModel
from metaloss.types import Batch, InnerState, Tensors

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class InnerProblem:
    """What stays the same over a run: the functions that an inner step is made of.

    Attributes:
        model: The base model as a function.
        loss: The learned loss; its own parameters are ignored, φ is passed in.
        task_loss: What φ is judged by, ``(raw outputs, targets) -> scalar``.
        optimizer: How θ moves.
    """

    model: FunctionalModel
    loss: nn.Module
    task_loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: InnerOptimizer

    @cached_property
    def tied_loss(self) -> bool:
        """Whether parameters of the loss share storage by name: rare, and costly to look for."""
        every = sum(1 for _ in self.loss.named_parameters(remove_duplicate=False))
        return every != sum(1 for _ in self.loss.named_parameters())

    def each(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function as it applies to this problem's values: as it is.

        A problem of many members at once (`StackedProblem`) applies it to each of them.
        """
        return function

    def agreed(self, values: T) -> T:
        """Return values that every process of a run must hold alike: as they are.

        A problem in many processes (`ShardedProblem`) returns those of one of them.
        """
        return values

    def predict(
        self, params: Tensors, buffers: Tensors, batch: Batch, key: Tensor
    ) -> tuple[Tensor, Tensors]:
        """Return the raw outputs (B, C, *) in train mode, and the new buffers."""
        return self.model(params, buffers, batch.inputs, key=key)

    def learned_loss(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar L_φ."""
        return functional_call(self.loss, phi, (outputs, targets), tie_weights=self.tied_loss)

    def judgement(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar task loss."""
        return self.task_loss(outputs, targets)

    def update(self, grads: Tensors, state: Any, params: Tensors) -> tuple[Tensors, Any]:
        """Return θ and the optimizer's state after one update."""
        return self.each(self.optimizer.update)(grads, state, params)

    def gradient(
        self, phi: Tensors, state: InnerState, batch: Batch, key: Tensor
    ) -> tuple[Tensors, Tensors, Tensor, Tensor]:
        """Return ∇_θ L_φ at the state, the new buffers, L_φ and the task loss; all detached."""
        leaves = {name: p.detach().requires_grad_() for name, p in state.params.items()}
        with torch.enable_grad():
            outputs, buffers = self.predict(leaves, state.buffers, batch, key)
            loss = self.learned_loss(phi, outputs, batch.targets)
            values = gradient_of(loss, list(leaves.values()))
        grads = dict(zip(leaves, values, strict=True))
        with torch.no_grad():
            task = self.judgement(outputs.detach(), batch.targets)
        return grads, buffers, loss.detach(), task

    def step(
        self, phi: Tensors, state: InnerState, batch: Batch, key: Tensor
    ) -> tuple[InnerState, Tensor, Tensor]:
        """Return the state after one inner step, L_φ and the task loss before it."""
        grads, buffers, loss, task = self.gradient(phi, state, batch, key)
        with torch.no_grad():
            params, optimizer = self.update(grads, state.optimizer, state.params)
        return InnerState(params, buffers, optimizer), loss, task

    def judge(self, state: InnerState, batch: Batch, key: Tensor) -> tuple[Tensors, Tensor]:
        """Return ∇_θ of the task loss on a meta-batch, and the task loss; buffers are dropped."""
        leaves = {name: p.detach().requires_grad_() for name, p in state.params.items()}
        with torch.enable_grad():
            outputs, _ = self.predict(leaves, state.buffers, batch, key)
            loss = self.judgement(outputs, batch.targets)
            values = gradient_of(loss, list(leaves.values()))
        return dict(zip(leaves, values, strict=True)), loss.detach()


def gradient_of(
    loss: Tensor, leaves: list[Tensor], *, create_graph: bool = False
) -> tuple[Tensor, ...]:
    """Return the gradient of the sum; zeros for leaves that the loss does not depend on."""
    if not loss.requires_grad:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    return torch.autograd.grad(
        loss,
        leaves,
        torch.ones_like(loss),
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )
