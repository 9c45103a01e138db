"""Metrics: error rates and squared error, as 0-d tensors on the device."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from metaloss.errors import MetalossError

# The default ignore_index of torch's cross-entropy.
IGNORED = -100


def error_rate(outputs: Tensor, targets: Tensor, *, ignore_index: int = IGNORED) -> Tensor:
    """Return the share of wrong classes, from 0 to 1: 1 − accuracy.

    Args:
        outputs: (B, C, *) raw outputs; the largest one is the predicted class.
        targets: (B, *) class indices, or (B, C, *) soft labels, of which the largest is the class.
        ignore_index: The class index that does not count.

    Example:
        >>> import torch
        >>> error_rate(torch.eye(4), torch.tensor([0, 1, 2, 0])).item()
        0.25
    """
    if targets.is_floating_point():
        targets = targets.argmax(dim=1)
    counted = targets != ignore_index
    wrong = (outputs.argmax(dim=1) != targets) & counted
    return wrong.sum() / counted.sum()


def binary_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the share of wrong yes/no answers, from 0 to 1.

    Args:
        outputs: (B, C, *) raw outputs; above 0 means yes.
        targets: The same shape; above ½ means yes.

    Raises:
        MetalossError: If the shapes differ.

    Example:
        >>> import torch
        >>> binary_error(torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 1.0]])).item()
        0.5
    """
    _same_shape("binary_error", outputs, targets)
    return ((outputs > 0) != (targets > 0.5)).to(outputs.dtype).mean()


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error over rows and outputs, in squared units of the targets.

    Args:
        outputs: (B, C, *).
        targets: The same shape.

    Raises:
        MetalossError: If the shapes differ.

    Example:
        >>> import torch
        >>> mse(torch.zeros(2, 1), torch.tensor([[1.0], [3.0]])).item()
        5.0
    """
    _same_shape("mse", outputs, targets)
    return F.mse_loss(outputs, targets)


def _same_shape(name: str, outputs: Tensor, targets: Tensor) -> None:
    if outputs.shape != targets.shape:
        raise MetalossError(
            f"{name}: outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}: "
            "expected equal shapes"
        )
