"""The usual loss times a learned factor: a learned learning rate."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from metaloss.losses.base import IGNORED, LearnedLoss
from metaloss.losses.criterion_text import criterion_text
from metaloss.losses.handcrafted import MSE, CrossEntropy, HandcraftedLoss
from metaloss.options import Options
from metaloss.types import Link


@dataclass(frozen=True, kw_only=True)
class ScaledConfig(Options, group="loss"):
    """Options of ``scaled``."""

    scale: float = field(default=1.0, metadata={"help": "initial factor"})


class Scaled(LearnedLoss):
    """φ times cross-entropy, or times squared error in regression; φ is one number.

    To change φ is to change the learning rate, and nothing else. A learned loss must be better than
    this to show that its shape matters.

    Reference:
        Raymond et al., "Meta-Learning Adaptive Loss Functions", TMLR 2025, the ablation on learned
        learning rates.

    Example:
        >>> loss = Scaled(ScaledConfig(scale=2.0))
        >>> logits, target = torch.tensor([[2.0, -1.0]]), torch.tensor([1])
        >>> (loss(logits, target) / CrossEntropy()(logits, target)).item()
        2.0
    """

    Config = ScaledConfig

    def __init__(
        self,
        config: ScaledConfig | None = None,
        *,
        link: Link | str = Link.softmax,
        ignore_index: int = IGNORED,
    ) -> None:
        super().__init__(config, link=link, ignore_index=ignore_index)
        base: type[HandcraftedLoss] = MSE if self.link is Link.identity else CrossEntropy
        self.base = base(link=self.link, ignore_index=ignore_index)
        self.class_reduction = self.base.class_reduction
        self.scale = nn.Parameter(torch.tensor(self.config.scale))

    def per_output(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return φ times the base loss of each output; both arguments (B, C, *)."""
        return self.scale * self.base.per_output(logits, target)

    def python(self) -> str:
        """Return the source of ``criterion(outputs, target)``."""
        formula, helpers = self.base.written() or ("", "")
        return criterion_text(self, f"{self.scale.item()!r} * ({formula})", helpers=helpers)
