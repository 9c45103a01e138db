"""The loss as an expression, with a learned coefficient for every edge of its tree."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from metaloss.errors import MetalossError, check_range
from metaloss.losses.base import IGNORED, ClassReduction, LearnedLoss
from metaloss.losses.criterion_text import criterion_text
from metaloss.losses.symbolic.parse import parse
from metaloss.losses.symbolic.render import as_latex, as_python, as_text
from metaloss.options import Options
from metaloss.types import Link


@dataclass(frozen=True, kw_only=True)
class SymbolicConfig(Options, group="loss"):
    """Options of the ``symbolic`` loss."""

    expression: str = field(
        default="square(sub(t, p))",
        metadata={"help": "in target t and prediction p, such as square(sub(t, p)) or (t - p)^2"},
    )
    coefficients: bool = field(
        default=True, metadata={"help": "learn a coefficient for every edge of the tree"}
    )
    noise: float = field(
        default=0.0,
        metadata={
            "help": "standard deviation of the initial coefficients around 1",
            "needs": (lambda own: own.coefficients, "loss.coefficients=true"),
        },
    )
    class_reduction: ClassReduction = field(
        default=ClassReduction.mean, metadata={"help": "how the values of a row are combined"}
    )

    def __post_init__(self) -> None:
        try:
            tokens = parse(self.expression).tokens
        except MetalossError as error:
            raise MetalossError(f"loss.{error}") from error
        for leaf, what in (("p", "prediction"), ("t", "target")):
            if leaf not in tokens:
                raise MetalossError(
                    f"loss.expression={self.expression}: expected an expression with the {what} "
                    f"{leaf}"
                )
        check_range("loss.noise", self.noise, 0 <= self.noise < 1, "a number in [0, 1)")


class Symbolic(LearnedLoss):
    """An expression in target and prediction, applied to every output.

    φ is one coefficient for each edge of the tree. All begin at 1, so that the loss begins as the
    expression. No start changes that: ``keep``, ``random`` and ``imitate`` give the same φ.

    Raises:
        MetalossError: If the expression cannot be read or an option is out of range.

    Reference:
        Raymond, Chen, Xue & Zhang, "Learning Symbolic Model-Agnostic Loss Functions via
        Meta-Learning", TPAMI 2023. There, expressions are found by genetic programming, and
        coefficients by meta-gradients.

    Example:
        >>> loss = Symbolic(SymbolicConfig(expression="-t * log(p)"))
        >>> loss.formula(), loss.coefficients.numel()
        ('-t*log(p)', 5)
        >>> outputs, target = torch.tensor([[1.0, 2.0]]), torch.tensor([1])
        >>> cross_entropy = nn.functional.cross_entropy(outputs, target)
        >>> torch.isclose(2 * loss(outputs, target), cross_entropy).item()
        True
    """

    Config = SymbolicConfig
    given = True

    def __init__(
        self,
        config: SymbolicConfig | None = None,
        *,
        link: Link | str = Link.softmax,
        ignore_index: int = IGNORED,
    ) -> None:
        super().__init__(config, link=link, ignore_index=ignore_index)
        config = self.config
        self.expression = parse(config.expression)
        self.coefficients: nn.Parameter | None = None
        if config.coefficients:
            edges = self.expression.size - 1
            self.coefficients = nn.Parameter(1 + config.noise * torch.randn(edges))

    def pointwise(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return ℓ(target, prediction); all shapes (B, C, *)."""
        return self.expression.evaluate(prediction, target, self.coefficients)

    def formula(self) -> str:
        """Return the current ℓ(t, p), simplified, in Python's notation."""
        return as_text(self.expression, self._numbers(), positive=self._positive)

    def latex(self) -> str:
        """Return the current ℓ(t, p), simplified, in LaTeX."""
        return as_latex(self.expression, self._numbers(), positive=self._positive)

    def python(self) -> str:
        """Return the exact source of ``criterion(outputs, target)``, for any program."""
        return criterion_text(self, as_python(self.expression, self._numbers()))

    def extra_repr(self) -> str:
        """Return what is printed: the formula, and that of the base class."""
        return f"{self.formula()}, {super().extra_repr()}"

    @property
    def _positive(self) -> bool:
        return self.link is not Link.identity

    def _numbers(self) -> list[float] | None:
        return None if self.coefficients is None else self.coefficients.tolist()
