"""Gradients of losses in lists of tensors, where a loss may not depend on all of them; norms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from metaloss.types import Tensors


def norm(values: Iterable[Tensor]) -> Tensor:
    """Return √Σx² over all elements of all tensors, 0-d; 0 without tensors.

    Example:
        >>> norm([torch.tensor([3.0]), torch.tensor([[4.0]])])
        tensor(5.)
    """
    # Not torch._foreach_norm: it has no batching rule.
    each = [torch.linalg.vector_norm(value) for value in values]
    return torch.stack(each).norm() if each else torch.zeros(())


def filled(values: Mapping[str, Tensor | None], like: Tensors) -> Tensors:
    """Return the values by the names of ``like``; zeros where a value is missing."""
    found = {name: values.get(name) for name in like}
    return {n: torch.zeros_like(like[n]) if v is None else v for n, v in found.items()}


def reached_by(
    loss: Tensor, leaves: list[Tensor], *, create_graph: bool = False, retain_graph: bool = False
) -> tuple[Tensor | None, ...]:
    """Return the gradient of the sum of ``loss``; None for leaves that it does not depend on."""
    if not loss.requires_grad:
        return tuple(None for _ in leaves)
    values = torch.autograd.grad(
        loss,
        leaves,
        torch.ones_like(loss),
        create_graph=create_graph,
        retain_graph=create_graph or retain_graph,
        allow_unused=True,
    )
    # Embeddings may have sparse gradients.
    return tuple(v.to_dense() if v is not None and v.is_sparse else v for v in values)


def gradient_of(
    loss: Tensor, leaves: list[Tensor], *, create_graph: bool = False
) -> tuple[Tensor, ...]:
    """Return the gradient of the sum of ``loss``; zeros for leaves that it does not depend on."""
    values = reached_by(loss, leaves, create_graph=create_graph)
    pairs = zip(values, leaves, strict=True)
    return tuple(torch.zeros_like(leaf) if value is None else value for value, leaf in pairs)


def check_whole(value: Tensor) -> None:
    """Raise if the graph of a value contains an operation without double backward.

    A function with ``once_differentiable`` ends the graph in a node that raises an error. If only
    the gradients of some leaves are requested, autograd skips this node and returns a wrong result.

    Raises:
        RuntimeError: If there is such a node.
    """
    seen = set()
    ahead = [value.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("differentiate twice: a function is marked once_differentiable")
        seen.add(node)
        ahead.extend(following for following, _ in node.next_functions)
