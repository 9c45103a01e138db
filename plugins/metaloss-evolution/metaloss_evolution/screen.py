"""What is known of a loss without training a model: its slopes, and where they lead."""

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
    """Return a text that two expressions share if their slopes ∂ℓ/∂p are the same everywhere.

    Training sees a loss through its slope alone. The slopes at random points are compared, to six
    digits, in place of two simplified formulas.

    Returns:
        None if the slope is 0 or not finite: nothing can be learned from such a loss.

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
    """Return whether raw outputs that follow the loss downhill get better by the task loss.

    A few outputs are moved directly, without a model: a loss that makes them no better cannot
    train one. This is EvoMAL's rejection filter.

    Args:
        loss: The candidate.
        task_loss: What it is judged by.
        outputs: C.
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
    # Adam: candidates differ in scale by orders of magnitude.
    optimizer = torch.optim.Adam([moving], lr=_RATE)
    for _ in range(_STEPS):
        (moving.grad,) = torch.autograd.grad(loss(moving, targets), moving)
        if not moving.grad.isfinite().all():
            return False
        optimizer.step()
    return bool(task_loss(moving.detach(), targets) < task_loss(start, targets))
