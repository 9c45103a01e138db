"""Barron's general and adaptive robust loss, for regression."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from metaloss.errors import check_range
from metaloss.losses.base import IGNORED, LearnedLoss
from metaloss.options import Options
from metaloss.types import Link


@dataclass(frozen=True, kw_only=True)
class BarronConfig(Options, group="loss"):
    """Options of ``barron``."""

    alpha: float = field(
        default=1.5,
        metadata={"help": "initial shape, < 2: 1 Charbonnier, 0 Cauchy, −2 Geman-McClure"},
    )
    scale: float = field(
        default=1.0, metadata={"help": "initial scale c, > 0; larger errors count less"}
    )

    def __post_init__(self) -> None:
        check_range("loss.alpha", self.alpha, self.alpha < 2, "a number below 2")
        check_range("loss.scale", self.scale, self.scale > 0, "a positive number")


class Barron(LearnedLoss):
    r"""Barron's loss of the error x = p − t, with learned shape α and scale c.

    ``(|α − 2| / α) (((x/c)² / |α − 2| + 1)^(α/2) − 1)``. For α → 2 this is the squared error, for 1
    a smooth absolute error, for 0 Cauchy's loss, for −2 that of Geman and McClure. The smaller α,
    the less outliers count. φ is log(2 − α) and log c, which may be any numbers.

    Raises:
        MetalossError: If an option is out of range.

    Reference:
        Barron, "A General and Adaptive Robust Loss Function", CVPR 2019, equation 1. Its partition
        function is left out, because φ is learned by the task loss and not by a likelihood.

    Example:
        >>> loss = Barron(BarronConfig(alpha=1.0), link="identity")
        >>> loss(torch.tensor([[3.0]]), torch.zeros(1, 1))  # √(3² + 1) − 1
        tensor(2.1623, grad_fn=<MeanBackward0>)
    """

    Config = BarronConfig

    def __init__(
        self,
        config: BarronConfig | None = None,
        *,
        link: Link | str = Link.identity,
        ignore_index: int = IGNORED,
    ) -> None:
        super().__init__(config, link=link, ignore_index=ignore_index)
        self.log_gap = nn.Parameter(torch.tensor(math.log(2 - self.config.alpha)))
        self.log_scale = nn.Parameter(torch.tensor(math.log(self.config.scale)))

    def pointwise(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the loss of every output; all shapes (B, C, *)."""
        gap = self.log_gap.exp()
        half_log = 0.5 * torch.log1p(((prediction - target) / self.log_scale.exp()) ** 2 / gap)
        # (|α−2|/α) (exp(α·half_log) − 1), without the division by α, so that α = 0 is no special
        # case.
        return gap * half_log * exprel((2 - gap) * half_log)


def exprel(x: Tensor) -> Tensor:
    """Return (exp(x) − 1) / x, and 1 at x = 0, with accurate derivatives.

    Example:
        >>> exprel(torch.tensor([0.0, 1.0]))
        tensor([1.0000, 1.7183])
    """
    small = x.abs() < 0.05
    # Seven terms; the next one is below 1e-14. Each branch gets only the numbers that it is for.
    near, far = torch.where(small, x, 0.0), torch.where(small, 1.0, x)
    series = torch.ones_like(near)
    for divisor in (8, 7, 6, 5, 4, 3, 2):
        series = 1 + near / divisor * series
    return torch.where(small, series, torch.expm1(far) / far)
