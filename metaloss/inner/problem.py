"""One inner step, shared by the trainer, every engine and every search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metaloss.contracts import InnerOptimizer
from metaloss.inner.functional import FunctionalModel
from metaloss.types import Batch, InnerState, Tensors

T = TypeVar("T")


class Forward(NamedTuple):
    """A forward pass in train mode, with its graph: θ as leaves, raw outputs, the new buffers."""

    leaves: Tensors
    outputs: Tensor
    buffers: Tensors


class Stepped(NamedTuple):
    """What an inner step came to: the state after it; before it ∇_θ L_φ, L_φ and the task loss."""

    state: InnerState
    grads: Tensors
    loss: Tensor
    task: Tensor


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

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return ``function(problem, *arguments)``: the door for code that may be compiled."""
        return function(self, *arguments)

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

    def forward(self, state: InnerState, batch: Batch, key: Tensor) -> Forward:
        """Run the model on a batch, so that losses of its outputs can be pulled back to θ."""
        leaves = {name: p.detach().requires_grad_() for name, p in state.params.items()}
        with torch.enable_grad():
            outputs, buffers = self.predict(leaves, state.buffers, batch, key)
        return Forward(leaves, outputs, buffers)

    def step(
        self,
        phi: Tensors,
        state: InnerState,
        batch: Batch,
        key: Tensor,
        forward: Forward | None = None,
    ) -> Stepped:
        """Take one inner step; all results are detached.

        Args:
            phi: φ by name.
            state: The state before the step.
            batch: What it sees.
            key: Decides the dropout masks.
            forward: The model's pass over this batch at this state, if it was run already.
        """
        forward = forward or self.forward(state, batch, key)
        with torch.enable_grad():
            loss = self.learned_loss(phi, forward.outputs, batch.targets)
        grads = _pull(loss, forward)
        with torch.no_grad():
            task = self.judgement(forward.outputs.detach(), batch.targets)
            params, optimizer = self.update(grads, state.optimizer, state.params)
        return Stepped(InnerState(params, forward.buffers, optimizer), grads, loss.detach(), task)

    def judge(
        self, state: InnerState, batch: Batch, key: Tensor, forward: Forward | None = None
    ) -> tuple[Tensors, Tensor]:
        """Return ∇_θ of the task loss on a meta-batch, and the task loss; buffers are dropped.

        A pass that is given can be pulled back again.
        """
        again = forward is not None
        forward = forward or self.forward(state, batch, key)
        with torch.enable_grad():
            loss = self.judgement(forward.outputs, batch.targets)
        return _pull(loss, forward, again=again), loss.detach()


def _pull(loss: Tensor, forward: Forward, *, again: bool = False) -> Tensors:
    values = gradient_of(loss, list(forward.leaves.values()), retain_graph=again)
    return dict(zip(forward.leaves, values, strict=True))


def gradient_of(
    loss: Tensor, leaves: list[Tensor], *, create_graph: bool = False, retain_graph: bool = False
) -> tuple[Tensor, ...]:
    """Return the gradient of the sum; zeros for leaves that the loss does not depend on."""
    if not loss.requires_grad:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    return torch.autograd.grad(
        loss,
        leaves,
        torch.ones_like(loss),
        create_graph=create_graph,
        retain_graph=create_graph or retain_graph,
        allow_unused=True,
        materialize_grads=True,
    )
