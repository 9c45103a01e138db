"""Copies values into an ordinary module."""

from __future__ import annotations

import torch
from torch import nn

from metaloss.inner.model.attributes import tensor_attributes
from metaloss.types import Tensors


@torch.no_grad()
def write_back(module: nn.Module, params: Tensors, buffers: Tensors) -> None:
    """Copy θ and buffers, or the φ of a loss, into a module, in place."""
    values = {**buffers, **params}
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    if not own.keys() >= values.keys():
        for name, (part, attribute) in tensor_attributes(module).items():
            if name in values:
                setattr(part, attribute, values[name].detach().clone())
    for name, value in own.items():
        if name not in values:
            continue
        given = values[name]
        if value.is_complex() and not given.is_complex():
            given = torch.view_as_complex(given.contiguous())
        # A frozen parameter may be the same tensor.
        if given.data_ptr() != value.data_ptr() or given.shape != value.shape:
            value.copy_(given)
