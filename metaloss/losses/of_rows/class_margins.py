"""Losses for long tails: balanced softmax and LDAM, with margins that can be learned."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from metaloss.contracts import Task, TaskDependent
from metaloss.errors import MetalossError, check_range
from metaloss.losses.base import Weighed
from metaloss.losses.of_rows.base import RowLoss, class_counts, known, of_classes
from metaloss.losses.rows import cross_entropy, spread
from metaloss.types import Row


@dataclass(frozen=True, kw_only=True)
class CountsConfig(TaskDependent):
    """Options of ``balanced_softmax``."""

    counts: list[float] = field(
        default_factory=list,
        metadata={"help": "rows of each class, > 0; []: those of the training labels"},
    )

    def __post_init__(self) -> None:
        positive = all(count > 0 for count in self.counts)
        check_range("loss.counts", self.counts, positive, "positive numbers")

    def for_task(self, task: Task) -> Self:
        """Return the options with the counts of the training labels, wrong ones included."""
        return self if self.counts else replace(self, counts=class_counts(task) or [])


class _CountedLoss(RowLoss):
    """A loss that begins with the number of rows of each class."""

    def __init__(self, config: Any = None, **given: Any) -> None:
        super().__init__(config, **given)
        if not self.config.counts:
            raise MetalossError("loss.counts=[]: expected the number of rows of each class")
        self.classes = len(self.config.counts)

    def counts(self) -> Tensor:
        """Return the number of rows (C,) of each class."""
        return torch.tensor(self.config.counts, dtype=torch.float64)


class BalancedSoftmax(_CountedLoss):
    """Cross-entropy of z + o, where φ = o (C,) begins at log n_c, n_c the rows of each class.

    At its start it is logit adjustment with τ = 1: predictions as if all classes were as frequent.

    Raises:
        MetalossError: With a link other than softmax, or without ``counts``.

    Reference:
        Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020,
        equation 4.

    Example:
        >>> loss = BalancedSoftmax(CountsConfig(counts=[9.0, 1.0]))
        >>> loss(torch.zeros(1, 2), torch.tensor([1])).item()  # −log 0.1
        2.3025851249694824
    """

    Config = CountsConfig

    def __init__(self, config: Any = None, **given: Any) -> None:
        super().__init__(config, **given)
        logs = self.counts().log()
        self.offsets = nn.Parameter((logs - logs.mean()).float())

    def per_row(self, logits: Tensor, target: Tensor, row: Row) -> Tensor:
        """Return the loss (B, *) of each row; see the base class."""
        return cross_entropy(logits + of_classes(self.offsets, logits), target)


@dataclass(frozen=True, kw_only=True)
class LDAMConfig(CountsConfig):
    """Options of ``ldam``."""

    largest: float = field(default=0.5, metadata={"help": "margin of the rarest class, > 0"})
    scale: float = field(default=30.0, metadata={"help": "s, which multiplies raw outputs, > 0"})
    drw: float = field(
        default=0.8,
        metadata={"help": "share of training after which rare classes weigh more; 1: never"},
    )
    drw_beta: float = field(
        default=0.9999,
        metadata={
            "help": "β of these weights (1 − β) / (1 − β^n), in [0, 1)",
            "needs": (lambda own: own.drw < 1, "loss.drw below 1"),
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("largest", "scale"):
            value = getattr(self, name)
            check_range(f"loss.{name}", value, value > 0, "a positive number")
        check_range("loss.drw", self.drw, 0 <= self.drw <= 1, "a number from 0 to 1")
        check_range("loss.drw_beta", self.drw_beta, 0 <= self.drw_beta < 1, "a number in [0, 1)")


class LDAM(_CountedLoss):
    """Cross-entropy of s (z − m_y at the label), with margins φ = m (C,) that begin ∝ n_c^(−1/4).

    After the share ``drw`` of training, rows weigh (1 − β) / (1 − β^n), n the rows of their class
    (deferred re-weighting). The paper's network ends in a layer with normalised weights and
    features, whose outputs lie between −1 and 1; with other networks, take a smaller ``scale``.

    Raises:
        MetalossError: With a link other than softmax, or without ``counts``.

    Reference:
        Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
        NeurIPS 2019, equations 9 to 13; scale and weights from its public code.

    Example:
        >>> loss = LDAM(LDAMConfig(counts=[16.0, 1.0]))
        >>> loss.margins.tolist()
        [0.25, 0.5]
    """

    Config = LDAMConfig

    def __init__(self, config: Any = None, **given: Any) -> None:
        super().__init__(config, **given)
        config, counts = self.config, self.counts()
        roots = counts**-0.25
        self.margins = nn.Parameter((config.largest * roots / roots.max()).float())
        weights = (1 - config.drw_beta) / (1 - config.drw_beta**counts)
        self.register_buffer("weights", (weights / weights.mean()).float(), persistent=False)
        self.sees = frozenset({"progress"}) if config.drw < 1 else frozenset()

    weights: Tensor

    def per_row(self, logits: Tensor, target: Tensor, row: Row) -> Tensor | Weighed:
        """Return the loss (B, *) of each row, and its weight; see the base class."""
        moved = logits - target * of_classes(self.margins, logits)
        values = cross_entropy(self.config.scale * moved, target)
        if not self.sees:
            return values
        (progress,) = known(row, "progress")
        late = spread(progress, values) >= self.config.drw
        weights = (target * of_classes(self.weights, logits)).sum(1)
        return Weighed(values, torch.where(late, weights, torch.ones_like(weights)))
