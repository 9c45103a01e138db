"""Tests of a loss without training a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from metaloss.inner.keys import generator
from metaloss.losses.base import LearnedLoss
from metaloss.losses.symbolic import Expression
from metaloss.losses.targets import random_classes
from metaloss.types import Link

_POINTS, _ROWS, _STEPS, _RATE = 64, 32, 30, 0.3
_DIGITS = 6


def fingerprint(expression: Expression) -> str | None:
    """Return a text that is the same for two expressions with the same ∂ℓ/∂p.

    Training depends only on this derivative. It is computed at random points, to six digits.

    Returns:
        The fingerprint; None if the derivative is 0 or not finite, so that the loss trains nothing.

    Example:
        >>> from metaloss.losses.symbolic import parse
        >>> one, two, other = (fingerprint(parse(text)) for text in ("(t-p)^2", "(p-t)^2", "t*p"))
        >>> one == two, one == other, fingerprint(parse("sign(p - t)"))
        (True, False, None)
    """
    draws = generator(0, "evolution/fingerprint")
    points = torch.rand(2, _POINTS, generator=draws, dtype=torch.float64)
    prediction = points[0].requires_grad_()
    value = expression.evaluate(prediction, points[1].round())
    if not value.requires_grad:
        return None
    (slope,) = torch.autograd.grad(value.sum(), prediction)
    if not slope.isfinite().all() or not slope.abs().max() > 1e-12:
        return None
    size = slope.abs().max()
    digits = (slope / size * 10**_DIGITS).round().to(torch.int64).tolist()
    text = f"{size.item():.{_DIGITS}e} {digits}"
    return hashlib.sha256(text.encode()).hexdigest()


def improves(
    loss: LearnedLoss, task_loss: Callable[[Tensor, Tensor], Tensor], outputs: int
) -> bool:
    """Return whether raw outputs that follow the gradient of the loss get a better task loss.

    A few raw outputs are optimised directly, without a model. A loss that does not improve them
    cannot train a model. This is EvoMAL's rejection filter.

    Args:
        loss: The candidate.
        task_loss: ``(raw outputs (B, C), targets) -> scalar``.
        outputs: C, the number of outputs.
    """
    draws = generator(0, "evolution/screen")
    start = torch.randn(_ROWS, outputs, generator=draws)
    if loss.link is Link.softmax:
        targets = random_classes(outputs, _ROWS, loss.ignore_index, draws)
    elif loss.link is Link.sigmoid:
        targets = torch.randint(2, (_ROWS, outputs), generator=draws).float()
    else:
        targets = torch.randn(_ROWS, outputs, generator=draws)
    moving = start.clone().requires_grad_()
    # Adam, because candidates differ in scale by orders of magnitude.
    optimizer = torch.optim.Adam([moving], lr=_RATE)
    for _ in range(_STEPS):
        (moving.grad,) = torch.autograd.grad(loss(moving, targets), moving)
        if not moving.grad.isfinite().all():
            return False
        optimizer.step()
    return bool(task_loss(moving.detach(), targets) < task_loss(start, targets))
