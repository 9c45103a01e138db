"""Symmetric cross-entropy: cross-entropy, and the same with prediction and target exchanged."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from metaloss.errors import check_range
from metaloss.losses.of_rows.base import RowLoss
from metaloss.losses.rows import cross_entropy
from metaloss.options import Options
from metaloss.types import Row


@dataclass(frozen=True, kw_only=True)
class SymmetricConfig(Options, group="loss"):
    """Options of ``symmetric``."""

    alpha: float = field(default=0.1, metadata={"help": "initial weight of cross-entropy, ≥ 0"})
    beta: float = field(
        default=1.0, metadata={"help": "initial weight of reverse cross-entropy, ≥ 0"}
    )
    log_zero: float = field(default=-4.0, metadata={"help": "A, what log 0 counts as, < 0"})

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            check_range(f"loss.{name}", value, value >= 0, "a number ≥ 0")
        check_range("loss.log_zero", self.log_zero, self.log_zero < 0, "a negative number")


class SymmetricCrossEntropy(RowLoss):
    """α · CE + β · RCE, with RCE = −Σ_c p_c log y_c and log 0 := A; φ = (α, β).

    The paper's values are α = 0.1, β = 1 for ten classes and α = 6, β = 0.1 for a hundred.

    Reference:
        Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", ICCV 2019,
        equations 5 to 7.

    Example:
        >>> loss = SymmetricCrossEntropy()
        >>> loss(torch.zeros(1, 2), torch.tensor([0]))  # 0.1 · log 2 + 4 · 1/2
        tensor(2.0693, grad_fn=<DivBackward0>)
    """

    Config = SymmetricConfig

    def __init__(self, config: Any = None, **given: Any) -> None:
        super().__init__(config, **given)
        self.alpha = nn.Parameter(torch.tensor(self.config.alpha))
        self.beta = nn.Parameter(torch.tensor(self.config.beta))

    def per_row(self, logits: Tensor, target: Tensor, row: Row) -> Tensor:
        """Return the loss (B, *) of each row; see the base class."""
        log_target = target.clamp(min=math.exp(self.config.log_zero)).log()
        reverse = -(logits.softmax(1) * log_target).sum(1)
        return self.alpha * cross_entropy(logits, target) + self.beta * reverse
