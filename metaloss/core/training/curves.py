"""Curves of the learned loss: ℓ(t, p) over p, for each target value."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from metaloss.errors import MetalossError
from metaloss.losses.base import LearnedLoss, Weighed, apply_link
from metaloss.losses.mlp import MLPLoss
from metaloss.losses.rows import completed
from metaloss.types import Link, Row, Tensors

_POINTS = 101
_NEVER = -40.0  # raw output of a class without any probability, beside one with 0


class _With(torch.nn.Module):
    """Calls a function of a loss, so that φ can be passed in."""

    def __init__(self, loss: LearnedLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
        return function(self.loss, *arguments)


def _as_defined(loss: LearnedLoss, logits: Tensor, target: Tensor) -> Tensor:
    return loss.per_output(logits, target)


def _with_memory(
    loss: MLPLoss, logits: Tensor, target: Tensor, memory: tuple[float, float]
) -> Tensor:
    row = Row(memory=logits.new_tensor(memory).expand(len(logits), 2))
    return loss.pointwise(apply_link(logits, loss.link), target, row)


def _as_trained(loss: LearnedLoss, logits: Tensor, target: Tensor, outputs: int) -> Tensor:
    """Return the integral of a loss's slope along the first of so many raw outputs.

    A loss that sees outputs as constants trains along another slope than that of its values.
    """
    more = outputs - logits.shape[1]  # further classes, without any probability
    logits, target = F.pad(logits, (0, more), value=_NEVER), F.pad(target, (0, more))
    with torch.enable_grad():
        moved = logits.detach().requires_grad_()
        found = loss.per_row(moved, target, completed(None, moved, loss.link))
        rows = found.values * found.weights.detach() if isinstance(found, Weighed) else found
        (slopes,) = torch.autograd.grad(rows.sum(), moved)
    areas = torch.cumulative_trapezoid(slopes[:, 0], logits[:, 0])
    areas = torch.cat((areas.new_zeros(1), areas)).unsqueeze(1)
    return target * areas if loss.link is Link.softmax else areas


@torch.no_grad()
def loss_curves(
    loss: LearnedLoss,
    phi: Tensors,
    memory: tuple[float, float] | None = None,
    classes: int = 2,
) -> tuple[tuple[float, ...], dict[str, tuple[float, ...]]]:
    """Return a grid of predictions, and ℓ(t, ·) on it by target label.

    Classification: p from 0.005 to 0.995, for t = 0 and t = 1; with the softmax link the rest of
    the probability is on one other class. A loss that sees outputs as constants is drawn as it
    trains: its slope is integrated from p = 0.005. Regression: predictions from −3 to 3 (in
    standard deviations of the target), for t = 0.

    Args:
        loss: The loss.
        phi: φ by name.
        memory: The memory of the rows, for ``loss=mlp`` with memory among its inputs: the mean
            probability of the label and the share of wrong guesses. None: that of a guess.
        classes: C of the task, which the slope of a loss that sees outputs may depend on.

    Raises:
        MetalossError: If the loss has no memory among its inputs.

    Example:
        >>> from metaloss.losses import CrossEntropy
        >>> grid, curves = loss_curves(CrossEntropy(), {})
        >>> round(grid[50], 3), round(curves["t=1"][50], 4)
        (0.5, 0.6931)
    """
    if memory is not None and not (isinstance(loss, MLPLoss) and "memory" in loss.sees):
        raise MetalossError(
            f"curves at memory={memory} of {type(loss).__name__}: expected loss=mlp with memory in "
            "loss.inputs"
        )
    like = next(iter(phi.values()), torch.zeros(()))
    device, dtype = like.device, like.dtype
    outputs = max(2, classes) if loss.link is Link.softmax else 1
    values: Callable[..., Tensor] = _as_defined
    if memory is not None:
        values = partial(_with_memory, memory=memory)
    elif loss.of_rows and "outputs" in loss.sees and loss.classes in (0, outputs):
        values = partial(_as_trained, outputs=outputs)
    module = _With(loss)
    named = {f"loss.{name}": value for name, value in phi.items()}
    if loss.link is Link.identity:
        grid = torch.linspace(-3, 3, _POINTS, device=device, dtype=dtype)
        logits, labels = grid.unsqueeze(1), {"t=0": 0.0}
    else:
        grid = torch.linspace(0.005, 0.995, _POINTS, device=device, dtype=dtype)
        logits = torch.logit(grid).unsqueeze(1)
        if loss.link is Link.softmax:
            logits = torch.cat((logits, torch.zeros_like(logits)), 1)
        labels = {"t=0": 0.0, "t=1": 1.0}
    curves = {}
    for label, value in labels.items():
        target = torch.full_like(logits, value)
        if loss.link is Link.softmax:
            target[:, 1] = 1 - value
        curves[label] = tuple(
            functional_call(module, named, (values, logits, target))[:, 0].tolist()
        )
    return tuple(grid.tolist()), curves
