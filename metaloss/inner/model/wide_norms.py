"""Normalisations under autocast: in single precision, so that forward mode can follow them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

# What they compute in single precision anyway, and round at the end.
_NARROW = (torch.bfloat16, torch.float16)
_KINDS = (_NormBase, nn.GroupNorm)


def with_wide_norms(module: nn.Module) -> nn.Module:
    """Let Batch-, Instance- and GroupNorm see and give single precision; return the module.

    PyTorch takes their narrow inputs beside wide weights as they are, outside of autocast's lists.
    But their derivative in forward mode then comes out wide under a narrow output, and the next
    convolution refuses such a pair. Conversions of inputs and outputs carry both along.
    """
    for part in module.modules():
        if isinstance(part, _KINDS):
            widening = _Widening()
            part.register_forward_pre_hook(widening.before)
            part.register_forward_hook(widening.after)
    return module


class _Widening:
    """The hooks of one module: what came in narrow goes out narrow, where it takes less memory."""

    def __init__(self) -> None:
        self._narrow: torch.dtype | None = None

    def before(self, module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Widen the input, unless the module is narrow itself."""
        weight = getattr(module, "weight", None)
        narrow = bool(given) and given[0].dtype in _NARROW
        widens = narrow and (weight is None or weight.dtype not in _NARROW)
        self._narrow = given[0].dtype if widens else None
        return (given[0].float(), *given[1:]) if widens else None

    def after(self, module: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
        """Narrow the output, if the input was widened."""
        return output if self._narrow is None else output.to(self._narrow)
