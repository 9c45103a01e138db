"""Losses that trust the network's own predictions: early-learning regularisation, bootstrapping."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from metaloss.errors import check_range
from metaloss.losses.of_rows.base import RowLoss, known, of_row
from metaloss.losses.rows import cross_entropy
from metaloss.options import Options
from metaloss.types import Row

# As in the public code: log(1 − ⟨p, t⟩) stays finite.
_LEAST = 1e-4


@dataclass(frozen=True, kw_only=True)
class EarlyLearningConfig(Options, group="loss"):
    """Options of ``elr``."""

    strength: float = field(default=3.0, metadata={"help": "initial λ, ≥ 0"})
    decay: float = field(
        default=0.7, metadata={"help": "β of the moving average of a row's predictions, in [0, 1)"}
    )

    def __post_init__(self) -> None:
        check_range("loss.strength", self.strength, self.strength >= 0, "a number ≥ 0")
        check_range("loss.decay", self.decay, 0 <= self.decay < 1, "a number in [0, 1)")


class EarlyLearning(RowLoss):
    """Early-learning regularisation: CE + λ log(1 − ⟨p, t⟩), t ← β t + (1 − β) p for each row.

    t is constant, with the row's present prediction in it; before the first visit it is 0. φ = λ.
    The paper's values are λ = 3, β = 0.7 for ten classes and λ = 7, β = 0.9 for a hundred.

    Reference:
        Liu et al., "Early-Learning Regularization Prevents Memorization of Noisy Labels", NeurIPS
        2020, equations 6 and 9.

    Example:
        >>> loss = EarlyLearning(EarlyLearningConfig(strength=1.0, decay=0.0))
        >>> loss(torch.zeros(1, 2), torch.tensor([0])).item()  # log 2 + log(1 − 1/2)
        0.0
    """

    Config = EarlyLearningConfig
    sees = frozenset({"average", "outputs"})

    def __init__(self, config: Any = None, **given: Any) -> None:
        super().__init__(config, **given)
        self.strength = nn.Parameter(torch.tensor(self.config.strength))
        self.recalls = self.config.decay

    def per_row(self, logits: Tensor, target: Tensor, row: Row) -> Tensor:
        """Return the loss (B, *) of each row; see the base class."""
        average, outputs = known(row, "average", "outputs")
        beta = self.config.decay
        aim = beta * of_row(average, logits) + (1 - beta) * outputs.softmax(1)
        shares = logits.softmax(1).clamp(_LEAST, 1 - _LEAST)
        return cross_entropy(logits, target) + self.strength * (1 - (shares * aim).sum(1)).log()


class Source(Enum):
    """Where the second target comes from.

    Attributes:
        prediction: The present prediction.
        memory: The moving average of the row's earlier predictions.
    """

    prediction = "prediction"
    memory = "memory"


@dataclass(frozen=True, kw_only=True)
class BootstrapConfig(Options, group="loss"):
    """Options of ``bootstrap``."""

    trust: float = field(
        default=0.95, metadata={"help": "initial weight β of the given label, in (0, 1)"}
    )
    source: Source = field(
        default=Source.prediction,
        metadata={"help": "of the other target: prediction, or memory (earlier ones of the row)"},
    )
    decay: float = field(
        default=0.9,
        metadata={
            "help": "of the moving average with source=memory, in [0, 1)",
            "needs": (lambda own: own.source is Source.memory, "loss.source=memory"),
        },
    )

    def __post_init__(self) -> None:
        check_range("loss.trust", self.trust, 0 < self.trust < 1, "a number between 0 and 1")
        check_range("loss.decay", self.decay, 0 <= self.decay < 1, "a number in [0, 1)")


class Bootstrap(RowLoss):
    """Soft bootstrapping: cross-entropy with the target β y + (1 − β) p; φ = β through a sigmoid.

    With ``source=memory``, p is the moving average of the row's earlier predictions, a constant;
    a row that was never visited has the target y.

    Reference:
        Reed et al., "Training Deep Neural Networks on Noisy Labels with Bootstrapping", ICLR 2015
        workshop, equation 6. With memory: in the manner of Laine & Aila, ICLR 2017.

    Example:
        >>> loss = Bootstrap(BootstrapConfig(trust=0.5))
        >>> loss(torch.zeros(1, 2), torch.tensor([0]))  # log 2 for any target
        tensor(0.6931, grad_fn=<DivBackward0>)
    """

    Config = BootstrapConfig

    def __init__(self, config: Any = None, **given: Any) -> None:
        super().__init__(config, **given)
        trust = self.config.trust
        self.trust = nn.Parameter(torch.tensor(math.log(trust / (1 - trust))))
        if self.config.source is Source.memory:
            self.sees, self.recalls = frozenset({"average"}), self.config.decay

    def per_row(self, logits: Tensor, target: Tensor, row: Row) -> Tensor:
        """Return the loss (B, *) of each row; see the base class."""
        beta = self.trust.sigmoid()
        if not self.sees:
            return cross_entropy(logits, beta * target + (1 - beta) * logits.softmax(1))
        (average,) = known(row, "average")
        # The average of few visits sums to less than 1: the rest is the given label's.
        rest = 1 - (1 - beta) * average.sum(1)
        aim = of_row(rest.unsqueeze(1), logits) * target
        return cross_entropy(logits, aim + (1 - beta) * of_row(average, logits))
