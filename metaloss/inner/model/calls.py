"""How a model is called with inputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from metaloss.inner.fields import Fields


def arguments(module: nn.Module, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and named arguments of the model's forward pass.

    A tensor is the only argument. A dictionary is passed by name if the forward method has
    parameters of these names, as in Hugging Face models. A tuple or list is passed as several
    arguments if the method needs several. Otherwise they are the only argument.

    Example:
        >>> import torch
        >>> arguments(nn.Bilinear(2, 3, 4), (torch.ones(5, 2), torch.ones(5, 3)))[0][1].shape
        torch.Size([5, 3])
    """
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, Fields):
        inputs = inputs.tree
    parameters = _parameters(module)
    if isinstance(inputs, Mapping):
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        known = {p.name for p in parameters}
        if known.issuperset(inputs) or (takes_any and known & set(inputs)):
            return (), dict(inputs)
        return (inputs,), {}
    if isinstance(inputs, tuple | list):
        needed = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        several = len(needed) > 1 or any(p.kind is p.VAR_POSITIONAL for p in needed)
        return (tuple(inputs) if several else (inputs,)), {}
    return (inputs,), {}


def _parameters(module: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):  # implemented in C
        return []
