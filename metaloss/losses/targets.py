"""The encoding of targets, and checks of their values."""

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
        counted: (B, *), False for rows with the ignored index; None: all rows count.
    """

    values: Tensor
    counted: Tensor | None


def check_target(target: object) -> None:
    """Check the type of a target.

    Raises:
        MetalossError: If it is not a dense tensor of integers or real numbers.
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
    """Return the layout: ``"strided"`` for a dense tensor, or for example ``"sparse_coo"``."""
    return "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")


def encode(prediction: Tensor, target: Tensor, link: Link, ignore_index: int) -> Encoded:
    """Return the targets in the shape of the outputs.

    Args:
        prediction: (B, C, *) raw outputs.
        target: With the softmax link, (B, *) class indices or (B, C, *) probabilities; otherwise
            the shape of ``prediction``.
        link: The link of the loss.
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
    # In 8 bits, −100 would be 156, and class 200 would be −56.
    target = target.long()
    count = prediction.shape[1]
    # Not F.one_hot, which supports neither vmap nor tracing.
    every = torch.arange(count, device=target.device).view(1, -1, *[1] * (target.dim() - 1))
    values = (target.unsqueeze(1) == every).to(prediction.dtype)
    return Encoded(values, target != ignore_index)


def out_of_range(
    prediction: Tensor, target: Tensor, link: Link, ignore_index: int
) -> Tensor | None:
    """Return a mask (B, *) of targets that are out of range; None with the identity link.

    A class index must be below C and ≥ 0, or the ignored index. A soft target must be finite and
    ≥ 0, and with the sigmoid link ≤ 1.
    """
    if link is Link.identity:
        return None
    if target.shape == prediction.shape:
        return _outside(target, link).any(1)
    return _no_class(target.long(), prediction.shape[1], ignore_index)


def refuse_out_of_range(prediction: Tensor, target: Tensor, link: Link, ignore_index: int) -> None:
    """Check the values of a target that is `readable`.

    Raises:
        MetalossError: If one is out of range.
    """
    if link is Link.identity or not target.numel():
        return
    if target.shape == prediction.shape:
        outside = _outside(target, link)
        allowed = "probabilities, at least 0" if link is Link.softmax else "numbers from 0 to 1"
    else:
        target, count = target.long(), prediction.shape[1]
        lowest, highest = target.aminmax()
        if lowest >= 0 and highest < count:  # the usual case, in one pass
            return
        outside = _no_class(target, count, ignore_index)
        allowed = (
            f"class indices from 0 to {count - 1}, or the loss's ignore_index={ignore_index} for "
            "rows that do not count"
        )
    if outside.any():
        raise MetalossError(
            f"target has the value {target[outside][0].item():g}: expected {allowed}"
        )


def readable(tensor: Tensor) -> bool:
    """Return whether the values of a tensor can be read without a wait.

    They cannot be read on a GPU without a synchronisation, and not at all while a program is traced
    or compiled, or under ``vmap``.
    """
    return not (
        torch.compiler.is_compiling()
        or tensor.device.type != "cpu"
        or type(tensor) not in (Tensor, torch.nn.Parameter)
        or torch.jit.is_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None
        # Fake tensors and make_fx push such a mode.
        or torch._C._len_torch_dispatch_stack() > 0
    )


def random_classes(outputs: int, rows: int, ignore_index: int, draws: torch.Generator) -> Tensor:
    """Return class indices (B,), drawn uniformly from those of C = ``outputs`` that count.

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
    """Return a mask of class indices that are neither below ``count`` nor the ignored one."""
    return ((target < 0) | (target >= count)) & (target != ignore_index)


def _outside(target: Tensor, link: Link) -> Tensor:
    """Return a mask of soft targets that are out of range or NaN."""
    highest = float("inf") if link is Link.softmax else 1.0
    inside = (target >= 0) & (target <= highest)
    return ~(inside & (target < float("inf")))


def _allowed(prediction: Tensor, link: Link) -> str:
    shape = tuple(prediction.shape)
    if link is not Link.softmax:
        return f"{shape}"
    return f"class indices {shape[:1] + shape[2:]} or probabilities {shape}"
