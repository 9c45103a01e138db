"""What people read: error rates and squared error. Tensors in, a 0-d tensor out, no host sync."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from metaloss.errors import MetalossError

# Class index that torch's cross-entropy leaves out of its mean.
IGNORED = -100


def error_rate(outputs: Tensor, targets: Tensor, *, ignore_index: int = IGNORED) -> Tensor:
    """Return the share of wrong classes: 1 − accuracy, from 0 to 1.

    Args:
        outputs: (B, C, *) logits, or anything whose largest entry is the guess.
        targets: (B, *) class indices, or (B, C, *) soft labels, whose largest entry counts as
            the class.
        ignore_index: The class index that is left out.

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
    """Return the share of wrong yes/no answers, for outputs behind a sigmoid.

    Args:
        outputs: (B, C, *) logits; above 0 means yes.
        targets: The same shape; above ½ means yes.

    Example:
        >>> import torch
        >>> binary_error(torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 1.0]])).item()
        0.5
    """
    _same_shape("binary_error", outputs, targets)
    return ((outputs > 0) != (targets > 0.5)).to(outputs.dtype).mean()


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error, over rows and outputs, in squared units of the targets.

    Args:
        outputs: (B, C, *).
        targets: The same shape: (B, C) against (B,) would broadcast to nonsense.

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
