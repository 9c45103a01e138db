"""The type in which a loss computes: single precision or double."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module

from metaloss.errors import MetalossError
from metaloss.losses.targets import layout


def check_outputs(prediction: object) -> None:
    """Check the raw outputs.

    Raises:
        MetalossError: If they are not a dense, real tensor with at least one output for each row.
    """
    if not isinstance(prediction, Tensor):
        raise MetalossError(
            f"the raw outputs are a {type(prediction).__name__}: expected a tensor (B, C, *)"
        )
    kind = layout(prediction)
    if kind != "strided" or not prediction.is_floating_point():
        raise MetalossError(
            f"the raw outputs are {prediction.dtype} and {kind}: expected a dense tensor of "
            "floating-point numbers"
        )
    if prediction.dim() == 0 or (prediction.dim() > 1 and prediction.shape[1] == 0):
        raise MetalossError(
            f"the raw outputs have shape {tuple(prediction.shape)}: expected (B, C, *) with C ≥ 1"
        )


def computing_type(prediction: Tensor, loss: nn.Module) -> tuple[torch.dtype, bool]:
    """Return the type in which a loss computes, and whether all its tensors have that type.

    The type is float64 if the raw outputs or a parameter of the loss are, else float32.
    """
    parameters: set[torch.dtype] = set()
    buffers: set[torch.dtype] = set()
    for module in loss.modules():
        parameters.update(value.dtype for value in module._parameters.values() if value is not None)
        if module._buffers:
            buffers.update(value.dtype for value in module._buffers.values() if value is not None)
    double = torch.float64 in parameters or prediction.dtype == torch.float64
    dtype = torch.float64 if double else torch.float32
    held = {kind for kind in parameters | buffers if kind.is_floating_point}
    return dtype, held <= {dtype}


def in_type(dtype: torch.dtype, loss: nn.Module) -> AbstractContextManager[object]:
    """Return a context in which the parameters and buffers of a loss are converted to a type.

    Derivatives flow back to the original tensors.
    """
    others = {
        name: value.to(dtype)
        for name, value in (*loss.named_parameters(), *loss.named_buffers())
        if value.is_floating_point() and value.dtype != dtype
    }
    # Not functional_call: it would call the forward method of a subclass a second time.
    return _reparametrize_module(loss, others, tie_weights=True)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context without autocast, as torch's own losses have it."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
