"""Targets as a loss sees them: encoded, counted, and checked wherever numbers can be looked at."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metaloss.errors import MetalossError
from metaloss.types import Link


class Encoded(NamedTuple):
    """The targets of a batch.

    Attributes:
        values: (B, C, *): one-hot or soft targets, or values in regression.
        counted: (B, *), False for rows with the ignored index; None: every row counts.
    """

    values: Tensor
    counted: Tensor | None


def check_target(target: object) -> None:
    """Raise unless a target is a dense tensor that is not complex.

    Raises:
        MetalossError: With what it is.
    """
    if not isinstance(target, Tensor):
        raise MetalossError(f"target is a {type(target).__name__}: expected a tensor")
    kind = layout(target)
    if kind != "strided" or target.is_complex():
        raise MetalossError(
            f"target is {target.dtype} and {kind}: expected a dense tensor of class indices or of "
            "real numbers"
        )


def layout(tensor: Tensor) -> str:
    """Return ``"strided"`` for a dense tensor, else what it is, such as ``"sparse_coo"``."""
    return "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")


def encode(prediction: Tensor, target: Tensor, link: Link, ignore_index: int) -> Encoded:
    """Return the targets in the form of the outputs.

    Args:
        prediction: (B, C, *) raw outputs.
        target: With the softmax link (B, *) class indices or (B, C, *) probabilities, else the
            shape of ``prediction``.
        link: See above.
        ignore_index: Rows with this class index do not count.

    Raises:
        MetalossError: If the shapes or types do not fit.
    """
    real, classes = target.is_floating_point(), link is Link.softmax
    if target.shape == prediction.shape and (real or not classes):
        return Encoded(target.to(prediction.dtype), None)
    indices_shape = prediction.shape[:1] + prediction.shape[2:]
    if not classes or real or target.shape != indices_shape:
        raise MetalossError(
            f"target has shape {tuple(target.shape)} and type {target.dtype}, expected "
            f"{_allowed(prediction, link)} for raw outputs of shape {tuple(prediction.shape)} with "
            f"link={link.name}"
        )
    # In a byte −100 would be 156, and 200 classes would be −56.
    target = target.long()
    count = prediction.shape[1]
    # Not F.one_hot: it neither vmaps nor traces.
    every = torch.arange(count, device=target.device).view(1, -1, *[1] * (target.dim() - 1))
    values = (target.unsqueeze(1) == every).to(prediction.dtype)
    return Encoded(values, target != ignore_index)


def out_of_range(
    prediction: Tensor, target: Tensor, link: Link, ignore_index: int
) -> Tensor | None:
    """Return the rows (B, *) whose target is out of range; None for a link that has no range.

    Class indices other than the ignored one must be one of the outputs; soft targets must be at
    least 0, and with the sigmoid link at most 1. What is not a number is out of range.
    """
    if link is Link.identity:
        return None
    if target.shape == prediction.shape:
        return _outside(target, link).any(1)
    return _no_class(target.long(), prediction.shape[1], ignore_index)


def refuse_out_of_range(prediction: Tensor, target: Tensor, link: Link, ignore_index: int) -> None:
    """Raise if a target is out of range: for targets that are `readable`.

    Raises:
        MetalossError: With the value and what is allowed.
    """
    if link is Link.identity or not target.numel():
        return
    if target.shape == prediction.shape:
        outside = _outside(target, link)
        allowed = "probabilities, at least 0" if link is Link.softmax else "numbers from 0 to 1"
    else:
        target, count = target.long(), prediction.shape[1]
        lowest, highest = target.aminmax()
        if lowest >= 0 and highest < count:  # nearly always: one pass is enough
            return
        outside = _no_class(target, count, ignore_index)
        allowed = (
            f"class indices from 0 to {count - 1}, or {ignore_index} for rows that do not count "
            "(the loss's ignore_index, which can be set)"
        )
    if outside.any():
        raise MetalossError(f"target holds {target[outside][0].item():g}: expected {allowed}")


def readable(tensor: Tensor) -> bool:
    """Return whether the numbers of a tensor can be looked at now, at no price.

    Not on a GPU, which would have to be waited for; not in a program that is being traced or
    compiled, nor under ``vmap``, where there are no numbers of a single tensor.
    """
    return not (
        torch.compiler.is_compiling()
        or tensor.device.type != "cpu"
        or type(tensor) not in (Tensor, torch.nn.Parameter)
        or torch.jit.is_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None
        # Fake tensors and make_fx are such modes.
        or torch._C._len_torch_dispatch_stack() > 0
    )


def random_classes(outputs: int, rows: int, ignore_index: int, draws: torch.Generator) -> Tensor:
    """Return class indices (B,), drawn evenly from those of C = ``outputs`` that count.

    Example:
        >>> draws = torch.Generator().manual_seed(0)
        >>> random_classes(3, 100, 1, draws).unique()
        tensor([0, 2])
    """
    if not 0 <= ignore_index < outputs or outputs == 1:
        return torch.randint(outputs, (rows,), generator=draws)
    found = torch.randint(outputs - 1, (rows,), generator=draws)
    return found + (found >= ignore_index)


def _no_class(target: Tensor, count: int, ignore_index: int) -> Tensor:
    """Return where class indices are neither one of ``count`` classes nor the ignored one."""
    return ((target < 0) | (target >= count)) & (target != ignore_index)


def _outside(target: Tensor, link: Link) -> Tensor:
    """Return where soft targets are out of range: not a number counts as well."""
    highest = float("inf") if link is Link.softmax else 1.0
    inside = (target >= 0) & (target <= highest)
    return ~(inside & (target < float("inf")))


def _allowed(prediction: Tensor, link: Link) -> str:
    shape = tuple(prediction.shape)
    if link is not Link.softmax:
        return f"{shape}"
    return f"class indices {shape[:1] + shape[2:]} or probabilities {shape}"
