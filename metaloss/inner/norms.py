"""The Euclidean norm of several tensors as one vector."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def norm(values: Iterable[Tensor]) -> Tensor:
    """Return √Σx² over all elements of all tensors, 0-d; 0 without tensors.

    Example:
        >>> norm([torch.tensor([3.0]), torch.tensor([[4.0]])])
        tensor(5.)
    """
    # Not torch._foreach_norm: it has no batching rule.
    each = [torch.linalg.vector_norm(value) for value in values]
    return torch.stack(each).norm() if each else torch.zeros(())
