"""Forward passes that a backward pass runs again: those of PyTorch are left out, others found.

Weights are swapped in for one forward pass. By the time of the backward pass they are gone.
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

# What `torch.utils.checkpoint.checkpoint` looks up when it is called, in PyTorch 2.11 to 2.14.
_GENERATORS = (
    "_checkpoint_without_reentrant_generator",
    "_checkpoint_without_reentrant_generator_impl",
)


@contextmanager
def no_recomputation() -> Iterator[None]:
    """Let ``torch.utils.checkpoint.checkpoint`` run its function once, and keep the activations.

    Run again in the backward pass, it would give the gradient at other weights, and BatchNorm would
    count the batch twice. Run once, the numbers are those of the model without checkpointing, and
    so is the memory.
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
    """In place of the autograd function of ``use_reentrant=True``."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *arguments: Any) -> Any:
        return function(*arguments)


def _nothing_around(*arguments: Any, **options: Any) -> Iterator[None]:
    """In place of what ``use_reentrant=False`` does before and after the function."""
    yield


def needs_module_backward(module: nn.Module, outputs: Tensor, leaves: list[Tensor]) -> bool:
    """Whether a backward pass goes back to the module: to its weights, masks or buffers.

    It is tried with weights in the module that are not numbers: the gradient must not know of them.

    Args:
        module: The model, its own weights and buffers in place.
        outputs: Its raw outputs, with their graph.
        leaves: The weights that it was called with.
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
    # A mask is drawn by a key, which such a pass does not know.
    if any(isinstance(part, _DropoutNd) for part in again):
        return True
    if found is None:
        return bool(again)
    return _has_nan(found) and not _has_nan(_gradients(outputs, leaves) or found)


def _gradients(outputs: Tensor, leaves: list[Tensor]) -> list[Tensor] | None:
    try:
        values = torch.autograd.grad(outputs.sum(), leaves, retain_graph=True, allow_unused=True)
    except Exception:  # the first step will say why
        return None
    return [value for value in values if value is not None]


def _has_nan(values: list[Tensor]) -> bool:
    return any(bool(value.isnan().any()) for value in values)


@contextmanager
def _stand_ins(module: nn.Module) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Let the weights of a module be NaN, as leaves of a graph, and its buffers copies."""
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
