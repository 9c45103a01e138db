"""The rows that derivatives are tested on, and what becomes of errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.inner.dispatch import dispatch_kept
from metaloss.types import Batch

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
