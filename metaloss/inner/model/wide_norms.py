"""Normalisation layers under autocast, in single precision as forward mode needs it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

# Types that these layers compute in single precision anyway.
_NARROW = (torch.bfloat16, torch.float16)
_KINDS = (_NormBase, nn.GroupNorm)


def with_wide_norms(module: nn.Module) -> nn.Module:
    """Let Batch-, Instance- and GroupNorm compute in single precision; return the module.

    In half precision with fp32 weights, PyTorch's forward-mode derivative has another type than the
    output, and the next convolution refuses it. Explicit conversions of inputs and outputs convert
    both.
    """
    for part in module.modules():
        if isinstance(part, _KINDS):
            widening = _Widening()
            part.register_forward_pre_hook(widening.before)
            part.register_forward_hook(widening.after)
    return module


class _Widening:
    """The hooks of one module. Outputs have the type of the inputs, to save memory."""

    def __init__(self) -> None:
        self._narrow: torch.dtype | None = None

    def before(self, module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Convert a half-precision input, unless the module has half precision itself."""
        weight = getattr(module, "weight", None)
        narrow = bool(given) and given[0].dtype in _NARROW
        widens = narrow and (weight is None or weight.dtype not in _NARROW)
        self._narrow = given[0].dtype if widens else None
        return (given[0].float(), *given[1:]) if widens else None

    def after(self, module: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
        """Convert the output back, if the input was converted."""
        return output if self._narrow is None else output.to(self._narrow)
