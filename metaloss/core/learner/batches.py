"""The batches of a user's training loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from metaloss.errors import MetalossError
from metaloss.inner.accumulated import MicroBatches
from metaloss.inner.weighted import WeightedTargets, parts_of
from metaloss.types import Batch

Pair = tuple[Any, Tensor] | list[Any] | Batch


def as_batch(name: str, pair: Any) -> Batch:
    """Return (inputs, targets), or (inputs, targets, weights), as a batch.

    ``pair`` is a tuple or list. The inputs are a tensor (B, ...), or a tuple, list or dictionary of
    such tensors; the targets are a tensor; the weights (B,) of the rows are ≥ 0. Messages say
    ``name``.

    Raises:
        MetalossError: If ``pair`` is something else.

    Example:
        >>> import torch
        >>> as_batch("batch", (torch.zeros(2, 3), torch.tensor([0, 1]))).targets
        tensor([0, 1])
    """
    if not is_pair(pair):
        raise MetalossError(
            f"{name} is {_described(pair)}: expected (inputs, targets), perhaps with weights (B,)"
        )
    # Tensors from inference_mode cannot be part of a gradient, but copies can.
    inputs, targets, *weights = pytree.tree_map_only(Tensor, _ordinary, tuple(pair))
    if not weights:
        return Batch(inputs, targets)
    weighted: Any = WeightedTargets(targets, _checked_weights(name, weights[0], targets))
    return Batch(inputs, weighted)


def as_batches(batch: Any) -> tuple[Batch, ...]:
    """Return one batch, or a list of K batches, as a tuple of batches.

    Raises:
        MetalossError: If it is neither.
    """
    # A batch of a DataLoader is a list too: [inputs, targets].
    if is_pair(batch):
        return (as_batch("batch", batch),)
    if _is_list(batch):
        return tuple(as_batch("batch", pair) for pair in batch)
    if isinstance(batch, list | tuple) and not batch:
        raise MetalossError("step() got an empty list of batches; expected one or more")
    raise MetalossError(
        f"batch is {_described(batch)}: expected (inputs, targets), or a list of such pairs"
    )


def given_rows(batch: Any, meta_batch: Any, accumulate: bool) -> tuple[tuple[Batch, ...], Any]:
    """Return the batches of a step, or its parts, and the meta-batch; None without one.

    With ``accumulate``, a list of meta-batches is one in parts.
    """
    meta: Batch | MicroBatches | None = None
    if accumulate and _is_list(meta_batch):
        meta = MicroBatches(as_batches(meta_batch))
    elif meta_batch is not None:
        meta = as_batch("meta_batch", meta_batch)
    return as_batches(batch), meta


def refuse_unfit(rows: tuple[Batch, ...], meta_batch: Any, task_loss: object, parts: bool) -> None:
    """Raise if a batch has no rows, or if the task loss is not a mean over rows where it must be.

    ``rows`` are the batches of a step or, with ``parts``, the parts of its only batch.
    """
    if not callable(task_loss):
        raise MetalossError(
            f"task_loss is a {type(task_loss).__name__}: expected a function of raw outputs and "
            "targets, such as torch.nn.functional.cross_entropy"
        )
    given = [*rows, *(meta_batch.parts if isinstance(meta_batch, MicroBatches) else [meta_batch])]
    for batch in given:
        if batch is not None and parts_of(batch.targets)[0].shape[:1] == (0,):
            raise MetalossError("a batch has no rows: expected one or more")
    if parts or any(one and isinstance(one.targets, WeightedTargets) for one in given):
        refuse_class_weights(task_loss, "task_loss")


def refuse_class_weights(loss: object, name: str) -> None:
    """Raise if a loss of torch has weights of classes: they are lost in the loss of a single row.

    ``name``: what it is, for messages.
    """
    by_class = getattr(loss, "func", loss)
    options = getattr(loss, "keywords", None) or {"weight": getattr(loss, "weight", None)}
    known = isinstance(by_class, nn.CrossEntropyLoss | nn.NLLLoss)
    if options.get("weight") is not None and (known or by_class in (F.cross_entropy, F.nll_loss)):
        raise MetalossError(
            f"{name} has weights of classes, so it is not a mean over rows: expected them in the "
            "weights of the rows instead"
        )


def is_pair(value: Any) -> bool:
    """Whether a value is (inputs, targets) or (inputs, targets, weights)."""
    return (
        isinstance(value, tuple | list)
        and len(value) in (2, 3)
        and all(isinstance(one, Tensor) for one in value[1:])
        and not isinstance(value[0], str)
    )


def _checked_weights(name: str, weights: Tensor, targets: Tensor) -> Tensor:
    """Return the weights; on a GPU, where a check would wait, NaN in the place of wrong ones."""
    if weights.shape != targets.shape[:1] or not weights.is_floating_point():
        raise MetalossError(
            f"{name} has weights of shape {tuple(weights.shape)}: expected one for each row, "
            f"({len(targets)},), in floating point; got {weights.dtype}"
        )
    right = weights.isfinite() & (weights >= 0)
    if weights.device.type == "cpu" and not bool(right.all()):
        wrong = weights[~right][0].item()
        raise MetalossError(f"{name} has a weight of {wrong:g}: expected finite numbers ≥ 0")
    return torch.where(right, weights, torch.full_like(weights, float("nan")))


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(is_pair, value))


def _ordinary(value: Tensor) -> Tensor:
    return value.clone() if value.is_inference() else value


def _described(value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, dict):
        return f"a {kind} with the entries {', '.join(map(repr, list(value)[:5]))}"
    if isinstance(value, tuple | list):
        inside = ", ".join(type(one).__name__ for one in value[:5])
        return f"a {kind} of {len(value)} ({inside})"
    return f"a {kind}"
