"""Normalisations under autocast: in single precision, so that forward mode can follow them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from metaloss.inner.batch_norm import SharedBatchNorm

# What they compute in single precision anyway, and round at the end.
_NARROW = (torch.bfloat16, torch.float16)
_KINDS = (_NormBase, nn.GroupNorm, SharedBatchNorm)


def with_wide_norms(module: nn.Module) -> nn.Module:
    """Let Batch-, Instance- and GroupNorm see and give single precision; return the module.

    PyTorch takes their narrow inputs beside wide weights as they are, outside of autocast's lists.
    But their derivative in forward mode then comes out wide under a narrow output, and the next
    convolution refuses such a pair. Conversions of inputs and outputs carry both along.
    """
    for part in module.modules():
        if isinstance(part, _KINDS):
            part.register_forward_pre_hook(_widened)
            part.register_forward_hook(_narrowed)
    return module


def _widened(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        one.float() if isinstance(one, Tensor) and one.dtype in _NARROW else one for one in given
    )


def _narrowed(module: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
    kind = output.device.type
    # Where activations stay until the way back, they take half of the memory.
    return output.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else output
