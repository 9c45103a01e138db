"""The base of losses of rows: class tasks only, and a φ that begins at the published values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from metaloss.contracts import Task
from metaloss.losses.base import ClassReduction, LearnedLoss, expect_classes
from metaloss.types import Link, Row


class RowLoss(LearnedLoss):
    """A loss of rows (B, C, *) with C classes.

    φ begins where the options say, which are the published values unless others are given. So
    with ``schedule=static`` the loss is that of its paper; with ``online`` or ``offline`` it is
    learned from there.

    Raises:
        MetalossError: With a link other than softmax.
    """

    Config: type
    given = True
    links = (Link.softmax,)
    links_hint = " (classes)"

    def __init__(self, config: Any = None, **given: Any) -> None:
        super().__init__(config, class_reduction=ClassReduction.sum, **given)

    def adjusted(self, logits: Tensor) -> Tensor:
        """Return the raw outputs unchanged, if there are as many as the loss has classes."""
        expect_classes(self, logits)
        return logits

    def per_output(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each row at its target, (B, C, *), for pictures.

        A loss made for C classes is drawn as cross-entropy if there are not C outputs.
        """
        if self.classes not in (0, logits.shape[1]):
            return -target * F.log_softmax(logits, 1)
        return super().per_output(logits, target)


def of_classes(values: Tensor, like: Tensor) -> Tensor:
    """Return values (C,) of classes in a shape to multiply (B, C, *) with."""
    return values.view(-1, *[1] * (like.dim() - 2))


def of_row(values: Tensor, like: Tensor) -> Tensor:
    """Return values (B, C) of rows in a shape to multiply (B, C, *) with."""
    return values.view(*values.shape, *[1] * (like.dim() - 2))


def class_counts(task: Task) -> list[float] | None:
    """Return the rows of each class among the training labels, at least 1; None without classes."""
    targets = task.train.targets
    if task.link is not Link.softmax or targets.is_floating_point():
        return None
    counts = torch.bincount(targets[targets != task.ignore_index], minlength=task.outputs)
    found: list[float] = counts.clamp(min=1).double().tolist()
    return found


def known(row: Row, *names: str) -> tuple[Tensor, ...]:
    """Return fields of a row that the loss sees, so that they are never None."""
    values = tuple(getattr(row, name) for name in names)
    assert all(value is not None for value in values)
    return values
