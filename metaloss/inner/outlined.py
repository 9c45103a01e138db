"""A module without memory for its numbers, to see which shapes it would have."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from metaloss.inner.one_thread import one_thread

M = TypeVar("M", bound=nn.Module)


def outlined(build: Callable[[], M]) -> M | None:
    """Return the module that a function builds, on the meta device; None if it cannot be built so.

    Its parameters and buffers have shapes and types, but no values, and take no memory. The global
    random generators are not changed.

    Example:
        >>> outlined(lambda: nn.Linear(10**6, 10**6)).weight.shape  # 4 TB
        torch.Size([1000000, 1000000])
        >>> outlined(lambda: nn.Linear(1, int(torch.ones(1))))  # reads a value
    """
    try:
        with one_thread(), torch.random.fork_rng(devices=[]), torch.device("meta"):
            return build()
    except Exception:  # whatever is wrong with it, a usual building of it says so
        return None
