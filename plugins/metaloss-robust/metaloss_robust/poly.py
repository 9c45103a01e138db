"""A polynomial family between cross-entropy, focal loss and absolute error."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from metaloss.errors import check_range
from metaloss.losses.base import IGNORED
from metaloss.losses.handcrafted import LikelihoodLoss
from metaloss.options import Options
from metaloss.types import Link


@dataclass(frozen=True, kw_only=True)
class PolyConfig(Options, group="loss"):
    """Options of ``poly``."""

    order: int = field(default=3, metadata={"help": "number of coefficients, ≥ 1"})
    focus: int = field(
        default=0, metadata={"help": "γ of the focal factor (1 − p)^γ, a whole number ≥ 0"}
    )

    def __post_init__(self) -> None:
        for name, least in (("order", 1), ("focus", 0)):
            value = getattr(self, name)
            check_range(f"loss.{name}", value, value >= least, f"a whole number ≥ {least}")


class Poly(LikelihoodLoss):
    r"""``(1 − p)^γ [ −w log p + Σ_j ε_j (1 − p)^j ]``, p the target's probability.

    φ is w and ε₁ … ε_N. It begins at w = 1 and ε = 0: cross-entropy, or focal loss if γ > 0. With
    w = 0 and ε₁ = 2 it is the absolute error, which is robust to wrong labels.

    Raises:
        MetalossError: If an option is out of range, or with the identity link.

    Reference:
        Leng et al., "PolyLoss: A Polynomial Expansion Perspective of Classification Loss
        Functions", ICLR 2022. There, w = 1, and a few ε are chosen by hand.

    Example:
        >>> loss, logits = Poly(PolyConfig(order=1)), torch.tensor([[2.0, -1.0]])
        >>> same = nn.functional.cross_entropy(logits, torch.tensor([1]))
        >>> bool(torch.isclose(loss(logits, torch.tensor([1])), same))
        True
    """

    Config = PolyConfig

    def __init__(
        self,
        config: PolyConfig | None = None,
        *,
        link: Link | str = Link.softmax,
        ignore_index: int = IGNORED,
    ) -> None:
        super().__init__(config, link=link, ignore_index=ignore_index)
        self.weight = nn.Parameter(torch.ones(()))
        self.coefficients = nn.Parameter(torch.zeros(self.config.order))

    def of_log_probability(self, log_p: Tensor) -> Tensor:
        """Return the loss for log-probabilities ``log_p`` ≤ 0 of any shape."""
        missing = -torch.expm1(log_p)  # 1 − p, exact for p near 1 too
        polynomial = torch.zeros_like(missing)
        for coefficient in self.coefficients.flip(0):
            polynomial = missing * (coefficient + polynomial)
        return missing**self.config.focus * (polynomial - self.weight * log_p)
