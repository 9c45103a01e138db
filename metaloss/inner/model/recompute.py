"""Activation checkpointing switched off, where weights are swapped in for one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils import checkpoint

# What `torch.utils.checkpoint.checkpoint` looks up when it is called, in PyTorch 2.11 to 2.14.
_GENERATORS = (
    "_checkpoint_without_reentrant_generator",
    "_checkpoint_without_reentrant_generator_impl",
)


@contextmanager
def no_recomputation() -> Iterator[None]:
    """Let ``torch.utils.checkpoint.checkpoint`` run its function once, and keep the activations.

    It would run the function again in the backward pass. By then the weights that were swapped in
    are gone: the gradient would be that of other weights, and BatchNorm would count the batch
    twice. Run once, the numbers are those of the model without checkpointing, and so is the memory.
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
