"""Forward-mode differentiation, without PyTorch's warning at its first use."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch


def jvp(function: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """Return ``(function(*primals), its derivative along tangents)``; see ``torch.func.jvp``.

    Example:
        >>> jvp(torch.square, (torch.tensor(3.0),), (torch.tensor(1.0),))
        (tensor(9.), tensor(6.))
    """
    if not torch.compiler.is_compiling():
        _load_rules()
    return torch.func.jvp(function, primals, tangents)


@functools.cache
def _load_rules() -> None:
    # At the first use, PyTorch loads rules that are written with torch.jit.script, and warns that
    # torch.jit.script is deprecated. The user's code does not call it.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.script", category=Warning)
        zero = torch.zeros(())
        torch.func.jvp(torch.clone, (zero,), (zero,))
