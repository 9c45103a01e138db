"""A forward pass, an inner step, and the gradient of a loss of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.inner.gradients import reached_by
from metaloss.types import InnerState, Tensors


class Forward(NamedTuple):
    """A forward pass in train mode with its graph: θ as leaves, raw outputs, new buffers."""

    leaves: Tensors
    outputs: Tensor
    buffers: Tensors


class Stepped(NamedTuple):
    """The result of an inner step.

    Attributes:
        state: The state after the step.
        grads: ∇_θ L_φ before the step; without the parameters that the loss does not depend on.
        loss: L_φ before the step.
        task: The task loss before the step.
        between: See `StoredStep`.
        notes: The result of `InnerProblem.noted` for the outputs before the step.
    """

    state: InnerState
    grads: Tensors
    loss: Tensor
    task: Tensor
    between: tuple[Tensors, ...] = ()
    notes: Tensor | None = None


def pull(loss: Tensor, forward: Forward, *, again: bool = False) -> dict[str, Tensor | None]:
    """Return the gradient of a loss of a forward pass in θ; None where it does not depend on it."""
    values = reached_by(loss, list(forward.leaves.values()), retain_graph=again)
    return dict(zip(forward.leaves, values, strict=True))


def rows_of(inputs: Any, index: Any) -> Any:
    """Return some rows of a batch's inputs: a tensor, or a tuple, list or dictionary of tensors."""
    return pytree.tree_map_only(Tensor, lambda one: one[index], inputs)
