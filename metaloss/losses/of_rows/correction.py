"""Loss correction by a matrix of label errors: forward correction, and GLC."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaloss.contracts import Task, TaskDependent
from metaloss.errors import MetalossError, check_range
from metaloss.losses.of_rows.base import RowLoss, known
from metaloss.losses.rows import cross_entropy, spread
from metaloss.types import Link, Row


@dataclass(frozen=True, kw_only=True)
class CorrectionConfig(TaskDependent):
    """Options of ``correction``."""

    wrong: float = field(
        default=0.1,
        metadata={
            "help": "share of wrong labels that the matrix begins with, in (0, 1)",
            "needs": (lambda own: not own.matrix, "an empty loss.matrix"),
        },
    )
    matrix: list[float] = field(
        default_factory=list,
        metadata={"help": "C·C numbers, row by row: a true class, its given labels; []: by wrong"},
    )
    classes: int = field(default=0, metadata={"help": "number of classes; 0: the task's"})
    trusted_from: int = field(
        default=-1,
        metadata={"help": "rows from this number on have right labels; -1: those after training's"},
    )

    def __post_init__(self) -> None:
        check_range("loss.wrong", self.wrong, 0 < self.wrong < 1, "a number between 0 and 1")
        classes = math.isqrt(len(self.matrix))
        if classes**2 != len(self.matrix) or not all(0 <= one < math.inf for one in self.matrix):
            raise MetalossError(
                f"loss.matrix has {len(self.matrix)} numbers: expected C·C numbers ≥ 0"
            )
        if self.matrix and self.classes not in (0, classes):
            raise MetalossError(f"loss.classes={self.classes}: loss.matrix has {classes}")

    def for_task(self, task: Task) -> Self:
        """Return the options with the number of the task's classes and of its training rows."""
        if task.link is not Link.softmax:
            return self
        trusted = self.trusted_from if self.trusted_from >= 0 else len(task.train.targets)
        return replace(self, classes=self.classes or task.outputs, trusted_from=trusted)


class ForwardCorrection(RowLoss):
    """Cross-entropy of Mᵀp: M_ij is the probability that a row of class i has the label j.

    φ holds the logarithms of M (C, C), whose rows are normalised. Trusted rows, which a run with
    ``schedule.train_on=train+validation`` trains on too, have plain cross-entropy. With
    ``schedule=static`` and M from `confusion`, it is Gold Loss Correction.

    Raises:
        MetalossError: With a link other than softmax, or without the number of classes.

    Reference:
        Patrini et al., "Making Deep Neural Networks Robust to Label Noise: a Loss Correction
        Approach", CVPR 2017, theorem 2; Hendrycks et al., "Using Trusted Data to Train Deep
        Networks on Labels Corrupted by Severe Noise", NeurIPS 2018, section 3.

    Example:
        >>> loss = ForwardCorrection(CorrectionConfig(classes=2, wrong=0.25))
        >>> sure = torch.tensor([[100.0, -100.0]])
        >>> loss(sure, torch.tensor([1])).exp().item()  # 1 / 0.25
        4.0
    """

    Config = CorrectionConfig

    def __init__(self, config: Any = None, **given: Any) -> None:
        super().__init__(config, **given)
        config = self.config
        self.classes = math.isqrt(len(config.matrix)) or config.classes
        if self.classes < 2:
            raise MetalossError(
                f"loss.classes={self.classes}: expected the number of classes, at least 2"
            )
        shape = self.classes, self.classes
        if config.matrix:
            matrix = torch.tensor(config.matrix, dtype=torch.float64).view(shape)
        else:
            others = config.wrong / (self.classes - 1)
            matrix = torch.full(shape, others, dtype=torch.float64)
            matrix.fill_diagonal_(1 - config.wrong)
        self.sees = frozenset({"number"} if config.trusted_from >= 0 else ())
        self.logits = nn.Parameter(matrix.clamp(min=1e-12).log().float())

    @property
    def matrix(self) -> Tensor:
        """M (C, C)."""
        return self.logits.softmax(1)

    def per_row(self, logits: Tensor, target: Tensor, row: Row) -> Tensor:
        """Return the loss (B, *) of each row; see the base class."""
        joint = F.log_softmax(logits, 1).movedim(1, -1).unsqueeze(-1) + self.logits.log_softmax(1)
        values = -(target.movedim(1, -1) * joint.logsumexp(-2)).sum(-1)
        if not self.sees:
            return values
        (number,) = known(row, "number")
        trusted = spread(number >= self.config.trusted_from, values)
        return torch.where(trusted, cross_entropy(logits, target), values)


def confusion(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return GLC's estimate of M (C, C): row i is the mean prediction of trusted rows of class i.

    Args:
        outputs: (B, C) raw outputs for trusted rows, by a network that was trained on wrong labels.
        labels: (B,) their right classes. A class without rows gets the identity's row.

    Example:
        >>> confusion(torch.tensor([[0.0, 0.0], [100.0, 0.0]]), torch.tensor([0, 0]))
        tensor([[0.7500, 0.2500],
                [0.0000, 1.0000]])
    """
    classes = outputs.shape[1]
    shares = outputs.softmax(1)
    found = torch.eye(classes, dtype=shares.dtype, device=shares.device)
    for label in labels.unique().tolist():
        found[label] = shares[labels == label].mean(0)
    return found
