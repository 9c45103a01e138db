"""Derivatives along a direction: how, and forward mode without PyTorch's first warning."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from enum import Enum
from typing import Any

import torch

from metaloss.inner.one_thread import one_thread


class Tangents(Enum):
    """How J v, the derivative of the outputs along a direction v in θ, is computed for a model.

    ``forward``: one forward-mode pass. ``unfused``: the same without the fused kernels of oneDNN
    and cuDNN, some of which have no forward mode. ``reverse``: double backward, two reverse-mode
    passes. These three are exact. ``differences``: finite differences of the outputs. `probe` tests
    which of them are right for a model.
    """

    forward = "forward"
    unfused = "unfused"
    reverse = "reverse"
    differences = "differences"


def jvp(function: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """Return ``(function(*primals), its derivative along tangents)``; see ``torch.func.jvp``.

    One thread of a process at a time; others wait.

    Example:
        >>> jvp(torch.square, (torch.tensor(3.0),), (torch.tensor(1.0),))
        (tensor(9.), tensor(6.))
    """
    if torch.compiler.is_compiling():
        return torch.func.jvp(function, primals, tangents)
    with one_thread():
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
