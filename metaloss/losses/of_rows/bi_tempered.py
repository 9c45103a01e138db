"""The bi-tempered logistic loss: bounded at confident mistakes, with heavy tails."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaloss.errors import check_range
from metaloss.losses.of_rows.base import RowLoss
from metaloss.options import Options
from metaloss.types import Row

_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class BiTemperedConfig(Options, group="loss"):
    """Options of ``bi_tempered``."""

    t1: float = field(default=0.8, metadata={"help": "initial t₁, in (0, 1): bounds the loss"})
    t2: float = field(default=1.2, metadata={"help": "initial t₂, in (1, 20]: weight of the tails"})

    def __post_init__(self) -> None:
        check_range("loss.t1", self.t1, 0 < self.t1 < 1, "a number between 0 and 1")
        # Above, the powers in Newton's steps leave the range of single precision.
        check_range("loss.t2", self.t2, 1 < self.t2 <= 20, "a number in (1, 20]")


class BiTempered(RowLoss):
    """The Bregman divergence of y and the tempered softmax p = exp_t₂(z − λ(z)).

    Σ_c y_c (log_t₁ y_c − log_t₁ p_c) − (y_c^(2−t₁) − p_c^(2−t₁)) / (2 − t₁). φ holds t₁ through a
    sigmoid and t₂ − 1 through a softplus, so that both stay in range.

    Reference:
        Amid et al., "Robust Bi-Tempered Logistic Loss Based on Bregman Divergences", NeurIPS 2019,
        equations 4, 5 and 9.

    Example:
        >>> loss = BiTempered()
        >>> low, high = (loss(torch.tensor([[-z, z]]), torch.tensor([0])) for z in (100.0, 1000.0))
        >>> low.item() < high.item() < 1 / (1 - 0.8)  # bounded
        True
    """

    Config = BiTemperedConfig

    def __init__(self, config: Any = None, **given: Any) -> None:
        super().__init__(config, **given)
        t1, excess = self.config.t1, self.config.t2 - 1
        self.t1 = nn.Parameter(torch.tensor(math.log(t1 / (1 - t1))))
        self.t2 = nn.Parameter(torch.tensor(math.log(math.expm1(excess))))

    def per_row(self, logits: Tensor, target: Tensor, row: Row) -> Tensor:
        """Return the loss (B, *) of each row; see the base class."""
        t1, t2 = self.t1.sigmoid(), 1 + F.softplus(self.t2)
        log_p = log_exp_t(logits - normalizer(logits, t2).unsqueeze(1), t2)
        # y log_t y and y^(2−t) are 0 at y = 0.
        log_y = target.clamp(min=torch.finfo(target.dtype).tiny).log()
        linear = target * (log_t(log_y, t1) - log_t(log_p, t1))
        powers = target * ((1 - t1) * log_y).exp() - ((2 - t1) * log_p).exp()
        return (linear - powers / (2 - t1)).sum(1)


def log_t(log_x: Tensor, t: Tensor) -> Tensor:
    """Return log_t x = (x^(1−t) − 1) / (1 − t), from log x."""
    return torch.expm1((1 - t) * log_x) / (1 - t)


def log_exp_t(x: Tensor, t: Tensor) -> Tensor:
    """Return log exp_t x = log(1 + (1 − t) x) / (1 − t), for t > 1 and x ≤ 0."""
    return torch.log1p((1 - t) * x) / (1 - t)


def normalizer(logits: Tensor, t: Tensor) -> Tensor:
    """Return λ (B, *) with Σ_c exp_t(z_c − λ) = 1, and its derivatives; t > 1.

    The sum is convex and falling in λ, and at least 1 at λ = max z: Newton's steps from there
    approach λ from one side. Of a step at the solution, the derivative is that of λ; of a second
    one, the second derivative is too, since the error of λ enters squared.
    """
    fixed, at = logits.detach(), t.detach()
    found = fixed.amax(1)
    for _ in range(_STEPS):
        found = _newton(found, fixed, at)
    return _newton(_newton(found, logits, t), logits, t)


def _newton(found: Tensor, logits: Tensor, t: Tensor) -> Tensor:
    # z − λ is at most 0 up to rounding.
    log_p = log_exp_t(logits - found.unsqueeze(1), t)
    return found + (log_p.exp().sum(1) - 1) / (t * log_p).exp().sum(1)
