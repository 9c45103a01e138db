"""Digests of tensors, to compare them without keeping them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch

from metaloss.data.lazy import compared
from metaloss.inner.fields import leaves

# Number of rows that are copied from the device at once.
_ROWS = 8192


def digest(values: Iterable[Any]) -> str:
    """Return the SHA-256 of the shapes, types and bits of tensors, or of pytrees of tensors.

    Of rows that are read lazily, some stand for all.

    Example:
        >>> digest([torch.zeros(3)]) == digest([torch.zeros(3)])
        True
        >>> digest([torch.zeros(3)]) == digest([torch.zeros(1, 3)])
        False
    """
    found = hashlib.sha256()
    for value in leaves(list(values)):
        found.update(f"{tuple(value.shape)}{value.dtype}".encode())
        for rows in leaves(compared(value)):
            for block in (rows if rows.dim() else rows.reshape(1)).detach().split(_ROWS):
                raw = block.cpu().contiguous().reshape(-1).view(torch.uint8)
                found.update(raw.numpy().data)
    return found.hexdigest()
