"""Models whose backward pass runs parts of the forward pass again.

θ is put into the module for the forward pass only. In the backward pass, the module has other
weights. So PyTorch's activation checkpointing is switched off, and other recomputation is detected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils import checkpoint

# Functions that `torch.utils.checkpoint.checkpoint` uses, in PyTorch 2.11 to 2.14.
_GENERATORS = (
    "_checkpoint_without_reentrant_generator",
    "_checkpoint_without_reentrant_generator_impl",
)


@contextmanager
def no_recomputation() -> Iterator[None]:
    """Let ``torch.utils.checkpoint.checkpoint`` run its function once and keep the activations.

    Otherwise the backward pass would run it again with other weights, and BatchNorm would count the
    batch twice. Results and memory are then those of the model without checkpointing.
    """
    plain: dict[str, Any] = {"CheckpointFunction": _Once}
    plain |= {name: _nothing_around for name in _GENERATORS if hasattr(checkpoint, name)}
    before = {name: getattr(checkpoint, name) for name in plain}
    try:
        for name, value in plain.items():
            setattr(checkpoint, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(checkpoint, name, value)


class _Once:
    """Replaces the autograd function of ``use_reentrant=True``."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *arguments: Any) -> Any:
        return function(*arguments)


def _nothing_around(*arguments: Any, **options: Any) -> Iterator[None]:
    """Replaces what ``use_reentrant=False`` does before and after the function."""
    yield


def needs_module_backward(module: nn.Module, outputs: Tensor, leaves: list[Tensor]) -> bool:
    """Return whether a backward pass uses the module's weights, masks or buffers again.

    To find out, the module's weights are set to NaN for a backward pass, whose result must not
    change. ``outputs`` have their graph, and ``leaves`` are the weights that the model was called
    with.
    """
    if not outputs.requires_grad:
        return False
    names = set(module.modules())
    called: list[nn.Module] = []
    hook = register_module_forward_pre_hook(lambda part, _: called.append(part))
    try:
        with _stand_ins(module) as (weights, buffers):
            found = _gradients(outputs, leaves)
    finally:
        hook.remove()
    again = names.intersection(called)
    if any(one.grad is not None for one in weights) or any(one._version for one in buffers):
        return True
    # A dropout mask depends on a key, which such a pass does not have.
    if any(isinstance(part, _DropoutNd) for part in again):
        return True
    if found is None:
        return bool(again)
    return _has_nan(found) and not _has_nan(_gradients(outputs, leaves) or found)


def _gradients(outputs: Tensor, leaves: list[Tensor]) -> list[Tensor] | None:
    try:
        values = torch.autograd.grad(outputs.sum(), leaves, retain_graph=True, allow_unused=True)
    except Exception:  # the first step raises it again
        return None
    return [value for value in values if value is not None]


def _has_nan(values: list[Tensor]) -> bool:
    return any(bool(value.isnan().any()) for value in values)


@contextmanager
def _stand_ins(module: nn.Module) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Replace the weights of a module by NaN leaves, and its buffers by copies."""
    held: list[dict[str, Any]] = []
    for part in module.modules():
        held += [part._parameters, part._buffers]
    before = [dict(own) for own in held]
    weights: dict[Tensor, Tensor] = {}
    buffers: dict[Tensor, Tensor] = {}
    try:
        for own in held:
            for name, value in own.items():
                if value is None:
                    continue
                if value.requires_grad:
                    nan = value.detach().new_full((), math.nan).expand(value.shape)
                    own[name] = weights.setdefault(value, nan.requires_grad_())
                elif not isinstance(value, nn.Parameter):
                    own[name] = buffers.setdefault(value, value.clone())
        yield list(weights.values()), list(buffers.values())
    finally:
        for own, values in zip(held, before, strict=True):
            own.clear()
            own.update(values)
