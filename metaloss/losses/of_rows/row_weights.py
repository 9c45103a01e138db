"""A free weight for each training row."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from metaloss.contracts import Task, TaskDependent
from metaloss.errors import check_range
from metaloss.losses.of_rows.base import RowLoss, known
from metaloss.losses.rows import cross_entropy, spread
from metaloss.types import Row


@dataclass(frozen=True, kw_only=True)
class RowWeightsConfig(TaskDependent):
    """Options of ``row_weights``."""

    rows: int = field(default=0, metadata={"help": "number of training rows; 0: the task's"})
    linear: bool = field(
        default=False,
        metadata={
            "help": "the weights are φ itself and add up to 1 in a batch: for "
            "meta_optimizer.rule=l2rw"
        },
    )

    def __post_init__(self) -> None:
        check_range("loss.rows", self.rows, self.rows >= 0, "a number ≥ 0")

    def for_task(self, task: Task) -> Self:
        """Return the options with the number of the task's training rows."""
        return replace(self, rows=self.rows or len(task.train.targets))


class RowWeights(RowLoss):
    """Cross-entropy times a weight, one for each training row: w = 2 · sigmoid(φ).

    All weights begin at 1. The meta-gradient of a weight is −α times the inner product of two
    gradients: that of the row's cross-entropy, and that of the task loss. By this number L2RW
    weighs rows anew at every step; here it accumulates. Other rows have the weight 1.

    With ``linear``, the loss of a batch is the sum of φ times cross-entropy over its rows, and φ
    begins at 0. With ``meta_optimizer.rule=l2rw`` this is L2RW itself.

    Raises:
        MetalossError: With a link other than softmax.

    Reference:
        Ren et al., "Learning to Reweight Examples for Robust Deep Learning", ICML 2018, equations
        4 to 7 (the rule of one step).

    Example:
        >>> loss = RowWeights(RowWeightsConfig(rows=3))
        >>> loss(torch.zeros(1, 2), torch.tensor([0]), row=Row(number=torch.tensor([2]))).item()
        0.6931471824645996
    """

    Config = RowWeightsConfig

    def __init__(self, config: Any = None, **given: Any) -> None:
        super().__init__(config, **given)
        self.sees = frozenset({"number"} if self.config.rows else ())
        self.linear = self.config.linear
        self.weights = nn.Parameter(torch.zeros(self.config.rows))

    def per_row(self, logits: Tensor, target: Tensor, row: Row) -> Tensor:
        """Return the loss (B, *) of each row; see the base class."""
        values, count = cross_entropy(logits, target), len(self.weights)
        if not self.sees:
            return values
        (number,) = known(row, "number")
        own = self.weights[number.clamp(0, count - 1)]
        weights = len(values) * own if self.linear else 2 * own.sigmoid()
        ours = (number >= 0) & (number < count)
        return spread(torch.where(ours, weights, torch.ones_like(weights)), values) * values
