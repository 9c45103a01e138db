"""The rows and directions that derivatives are tested on, and what becomes of errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.inner.dispatch import dispatch_kept
from metaloss.inner.keys import generator
from metaloss.types import Batch, Tensors

# BatchNorm needs more than one.
ROWS = 4


def said(error: Exception) -> str:
    """Return the first line of an error's message, without its full stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160].rstrip(". ")


def runs(function: Callable[[], Any]) -> bool:
    """Return whether a function raises no error."""
    try:
        with dispatch_kept():
            function()
    except Exception:  # a model may raise anything
        return False
    return True


def few(batch: Batch) -> Batch:
    """Return the first rows of a batch."""
    return pytree.tree_map_only(Tensor, lambda value: value[:ROWS], batch)


def finite(value: Tensor) -> Tensor:
    """Return a tensor with zeros instead of NaN and infinities."""
    if not (value.is_floating_point() or value.is_complex()) or value.is_sparse:
        return value
    return torch.nan_to_num(value, nan=0.0, posinf=0.0, neginf=0.0)


def double(value: Tensor) -> Tensor:
    """Return a tensor in double precision; integers are not changed."""
    if value.is_complex():
        return value.to(torch.complex128)
    return value.double() if value.is_floating_point() else value


def random_like(like: Tensors, purpose: str) -> Tensors:
    """Return random directions, not 0, whose norms are about those of ``like``."""
    found = {}
    for number, (name, value) in enumerate(like.items()):
        draw = torch.randn(value.shape, generator=generator(0, purpose, number)).to(value)
        size = float(value.detach().norm()) / max(value.numel(), 1) ** 0.5
        found[name] = draw * (size + 0.01)
    return found


def moved(params: Tensors, direction: Tensors, size: float) -> Tensors:
    """Return θ + size · direction."""
    return {name: p.detach() + size * direction[name] for name, p in params.items()}
