"""The loss as a Taylor polynomial in target and prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from metaloss.errors import check_range
from metaloss.losses.base import IGNORED, ClassReduction, LearnedLoss
from metaloss.losses.criterion_text import criterion_text
from metaloss.options import Options
from metaloss.types import Link

_HIGHEST = 8


@dataclass(frozen=True, kw_only=True)
class TaylorConfig(Options, group="loss"):
    """Options of the ``taylor`` loss."""

    order: int = field(
        default=3, metadata={"help": "highest total power of target and prediction, 2 to 8"}
    )
    class_reduction: ClassReduction = field(
        default=ClassReduction.mean, metadata={"help": "how the values of a row are combined"}
    )

    def __post_init__(self) -> None:
        # With order 1, the expansion point has no effect on any gradient.
        words = f"a whole number from 2 to {_HIGHEST}"
        check_range("loss.order", self.order, 2 <= self.order <= _HIGHEST, words)


class Taylor(LearnedLoss):
    r"""A bivariate Taylor polynomial, applied to every output.

    With target t, prediction p and the expansion point (a, b),
    ``ℓ(t, p) = −Σ c_ij (t − a)^i (p − b)^j / (i! j!)`` over j ≥ 1 and i + j ≤ order. Terms in t
    alone have no effect on any gradient and are left out. φ is the coefficients c, drawn from a
    standard normal distribution, and a and b, drawn uniformly from [0, 1).

    Raises:
        MetalossError: If an option is out of range.

    Reference:
        Gonzalez & Miikkulainen, "Optimizing Loss Functions Through Multivariate Taylor Polynomial
        Parameterization", 2021. There, the 8 parameters of order 3 are searched by CMA-ES.

    Example:
        >>> loss = Taylor(link="identity")
        >>> sum(p.numel() for p in loss.parameters()), loss.powers
        (8, ((0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (2, 1)))
        >>> with torch.no_grad():  # ℓ(t, p) = −t p
        ...     _ = loss.coefficients.copy_(torch.tensor([0.0, 0, 0, 1, 0, 0]))
        ...     _ = loss.centre.zero_()
        >>> loss(torch.tensor([[3.0]]), torch.tensor([[2.0]])).item()
        -6.0
    """

    Config = TaylorConfig

    def __init__(
        self,
        config: TaylorConfig | None = None,
        *,
        link: Link | str = Link.softmax,
        ignore_index: int = IGNORED,
    ) -> None:
        super().__init__(config, link=link, ignore_index=ignore_index)
        order = self.config.order
        self.powers = tuple((i, j) for i in range(order) for j in range(1, order + 1 - i))
        self.coefficients = nn.Parameter(torch.randn(len(self.powers)))
        self.centre = nn.Parameter(torch.rand(2))

    def pointwise(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return ℓ(target, prediction); all shapes (B, C, *)."""
        order = self.config.order
        of_target = _powers(target - self.centre[0], order)
        of_prediction = _powers(prediction - self.centre[1], order)
        value = torch.zeros_like(prediction)
        for index, (i, j) in enumerate(self.powers):
            share = 1 / (math.factorial(i) * math.factorial(j))
            value = value - share * self.coefficients[index] * of_target[i] * of_prediction[j]
        return value

    def formula(self) -> str:
        """Return the current ℓ(t, p) in Python's notation.

        Example:
            >>> loss = Taylor(TaylorConfig(order=2))
            >>> with torch.no_grad():
            ...     _ = loss.coefficients.copy_(torch.tensor([1.0, -2.0, 0.5]))
            ...     _ = loss.centre.copy_(torch.tensor([0.0, 1.0]))
            >>> loss.formula()
            '-1*(p - 1) + 1*(p - 1)**2 - 0.5*(t - 0)*(p - 1)'
            >>> loss.latex()
            '-1 (p - 1) + 1 (p - 1)^{2} - 0.5 (t - 0) (p - 1)'
        """
        return self._written("{:.6g}", "*", "**{}")

    def latex(self) -> str:
        """Return the current ℓ(t, p) in LaTeX."""
        return self._written("{:.4g}", " ", "^{{{}}}")

    def python(self) -> str:
        """Return the exact source of ``criterion(outputs, target)``, for any program."""
        return criterion_text(self, self._written("{!r}", "*", "**{}"))

    def _written(self, number: str, times: str, power: str) -> str:
        a, b = (number.format(value) for value in self.centre.tolist())
        terms = []
        for (i, j), coefficient in zip(self.powers, self.coefficients.tolist(), strict=True):
            factor = number.format(-coefficient / (math.factorial(i) * math.factorial(j)))
            parts = [_factor("t", a, i, power), _factor("p", b, j, power)]
            terms.append(times.join([factor, *filter(None, parts)]))
        return " + ".join(terms).replace("+ -", "- ")

    def extra_repr(self) -> str:
        """Return what is printed: the formula, and that of the base class."""
        return f"{self.formula()}, {super().extra_repr()}"


def _powers(x: Tensor, order: int) -> list[Tensor]:
    # Products: the derivatives of x ** n are slower, and x ** 0 has none.
    powers = [torch.ones_like(x)]
    for _ in range(order):
        powers.append(powers[-1] * x)
    return powers


def _factor(name: str, centre: str, exponent: int, power: str) -> str:
    shifted = f"({name} - {centre})".replace("- -", "+ ")
    return shifted + (power.format(exponent) if exponent > 1 else "") if exponent else ""
