"""Hand-made losses with the interface of learned ones: the baselines. They have no φ.

They work on raw outputs, so that they stay exact where probabilities would underflow.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from metaloss.errors import check_range
from metaloss.losses.base import IGNORED, ClassReduction, LearnedLoss, apply_link
from metaloss.losses.criterion_text import criterion_text
from metaloss.options import Options
from metaloss.types import Link


@dataclass(frozen=True, kw_only=True)
class NoOptions(Options, group="loss"):
    """The options of a loss that has none."""


class HandcraftedLoss(LearnedLoss):
    """A loss without φ.

    It sums over classes with the softmax link and averages over outputs with the others, as
    ``nn.CrossEntropyLoss``, ``nn.BCEWithLogitsLoss`` and ``nn.MSELoss`` do.
    """

    Config: type = NoOptions

    def __init__(
        self,
        config: Any = None,
        *,
        link: Link | str = Link.softmax,
        ignore_index: int = IGNORED,
    ) -> None:
        super().__init__(config, link=link, ignore_index=ignore_index)
        if self.link is Link.softmax:
            self.class_reduction = ClassReduction.sum

    def written(self) -> tuple[str, str] | None:
        """Return ℓ as a Python expression, and the source of what it calls; None: not known."""
        return None

    def python(self) -> str | None:
        """Return the source of ``criterion(outputs, target)``; None if it is not known."""
        written = self.written()
        return written and criterion_text(self, written[0], helpers=written[1])


class LikelihoodLoss(HandcraftedLoss):
    """A loss that is a function of the target's log-probability.

    Raises:
        MetalossError: With the identity link, which gives no probabilities.
    """

    links: tuple[Link, ...] = (Link.softmax, Link.sigmoid)
    links_hint = " (probabilities); for regression use mse or mae"
    formula: str | None = None

    @abstractmethod
    def of_log_probability(self, log_p: Tensor) -> Tensor:
        """Return the loss for log-probabilities ``log_p`` ≤ 0 of any shape."""

    def written(self) -> tuple[str, str] | None:
        """Return ℓ as a Python expression, and the source of what it calls."""
        if self.formula is None:
            return None
        formula = self.formula.format(**vars(self.config))
        helpers = f"\ndef of_log_probability(log_p):\n    return {formula}\n"
        if self.link is Link.softmax:
            return "t * of_log_probability(torch.log_softmax(outputs, 1))", helpers
        one, zero = (
            f"of_log_probability(-torch.nn.functional.softplus({sign}outputs))"
            for sign in ("-", "")
        )
        return f"t * {one} + (1 - t) * {zero}", helpers

    def per_output(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each output; both arguments (B, C, *)."""
        if self.link is Link.softmax:
            return target * self.of_log_probability(F.log_softmax(logits, 1))
        of_one = self.of_log_probability(-F.softplus(-logits))
        of_zero = self.of_log_probability(-F.softplus(logits))
        return target * of_one + (1 - target) * of_zero


class CrossEntropy(LikelihoodLoss):
    """Cross-entropy: −log p of the target; equals ``nn.CrossEntropyLoss``.

    Example:
        >>> logits, target = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([2])
        >>> bool(torch.isclose(CrossEntropy()(logits, target), F.cross_entropy(logits, target)))
        True
    """

    formula = "-log_p"

    def of_log_probability(self, log_p: Tensor) -> Tensor:
        """Return −log p."""
        return -log_p


@dataclass(frozen=True, kw_only=True)
class GeneralizedCrossEntropyConfig(Options, group="loss"):
    """Options of ``gce``."""

    q: float = field(
        default=0.7, metadata={"help": "in (0, 1]: towards 0 cross-entropy, 1 absolute error"}
    )

    def __post_init__(self) -> None:
        check_range("loss.q", self.q, 0 < self.q <= 1, "a number in (0, 1]")


class GeneralizedCrossEntropy(LikelihoodLoss):
    """Generalised cross-entropy (1 − p^q) / q, p the target's probability: robust to wrong labels.

    Reference:
        Zhang & Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with
        Noisy Labels", NeurIPS 2018, equation 6.

    Example:
        >>> loss = GeneralizedCrossEntropy(GeneralizedCrossEntropyConfig(q=1.0))
        >>> loss(torch.zeros(1, 4), torch.tensor([0])).item()  # 1 − 1/4
        0.75
    """

    Config = GeneralizedCrossEntropyConfig
    formula = "-torch.expm1({q!r} * log_p) / {q!r}"

    def of_log_probability(self, log_p: Tensor) -> Tensor:
        """Return (1 − p^q) / q, as −expm1(q log p) / q, which is exact for p near 1 too."""
        return -torch.expm1(self.config.q * log_p) / self.config.q


@dataclass(frozen=True, kw_only=True)
class FocalConfig(Options, group="loss"):
    """Options of ``focal``."""

    gamma: float = field(
        default=2.0,
        metadata={"help": "0 (cross-entropy) or ≥ 1; the larger, the less easy rows count"},
    )

    def __post_init__(self) -> None:
        # Between 0 and 1, the derivative at p = 1 is infinite.
        holds = self.gamma == 0 or self.gamma >= 1
        check_range("loss.gamma", self.gamma, holds, "0 or a number ≥ 1")


class Focal(LikelihoodLoss):
    """Focal loss −(1 − p)^γ log p, p the target's probability.

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 4.

    Example:
        >>> loss = Focal(FocalConfig(gamma=2.0))
        >>> loss(torch.zeros(1, 2), torch.tensor([0]))  # −(1/2)² log(1/2)
        tensor(0.1733)
    """

    Config = FocalConfig
    formula = "-((-torch.expm1(log_p)) ** {gamma!r}) * log_p"

    def of_log_probability(self, log_p: Tensor) -> Tensor:
        """Return −(1 − p)^γ log p."""
        if self.config.gamma == 0:
            return -log_p
        return -((-torch.expm1(log_p)) ** self.config.gamma) * log_p


@dataclass(frozen=True, kw_only=True)
class LabelSmoothingConfig(Options, group="loss"):
    """Options of ``label_smoothing``."""

    smoothing: float = field(
        default=0.1, metadata={"help": "in [0, 1): share of the target spread over all classes"}
    )

    def __post_init__(self) -> None:
        check_range("loss.smoothing", self.smoothing, 0 <= self.smoothing < 1, "a number in [0, 1)")


class LabelSmoothing(CrossEntropy):
    """Cross-entropy with smoothed targets; equals ``F.cross_entropy(label_smoothing=...)``.

    Reference:
        Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016, section 7.

    Example:
        >>> loss = LabelSmoothing(LabelSmoothingConfig(smoothing=0.1))
        >>> logits, target = torch.tensor([[2.0, -1.0]]), torch.tensor([0])
        >>> expected = F.cross_entropy(logits, target, label_smoothing=0.1)
        >>> bool(torch.isclose(loss(logits, target), expected))
        True
    """

    Config = LabelSmoothingConfig

    def per_output(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each output; both arguments (B, C, *)."""
        share = self.config.smoothing
        classes = logits.shape[1] if self.link is Link.softmax else 2
        return super().per_output(logits, target * (1 - share) + share / classes)

    def written(self) -> tuple[str, str] | None:
        """Return ℓ as a Python expression, and the source of what it calls."""
        formula, helpers = super().written() or ("", "")
        classes = "outputs.shape[1]" if self.link is Link.softmax else "2"
        share = self.config.smoothing
        helpers += (
            f"\n\ndef smoothed(t, outputs):\n    return t * {1 - share!r} + {share!r} / {classes}\n"
        )
        return re.sub(r"\bt\b", "smoothed(t, outputs)", formula), helpers


class MSE(HandcraftedLoss):
    """Squared error of the predictions; equals ``nn.MSELoss`` with the identity link.

    Example:
        >>> MSE(link="identity")(torch.tensor([[3.0]]), torch.tensor([[1.0]])).item()
        4.0
    """

    def per_output(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return (p − t)²; both arguments (B, C, *)."""
        return (apply_link(logits, self.link) - target) ** 2

    def written(self) -> tuple[str, str] | None:
        """Return ℓ as a Python expression."""
        return "(p - t) ** 2", ""


class MAE(HandcraftedLoss):
    """Absolute error of the predictions; equals ``nn.L1Loss`` with the identity link.

    With the softmax link it is 2 (1 − p), p the target's probability: robust to wrong labels.

    Reference:
        Ghosh, Kumar & Sastry, "Robust Loss Functions under Label Noise for Deep Neural
        Networks", AAAI 2017.

    Example:
        >>> MAE(link="identity")(torch.tensor([[3.0]]), torch.tensor([[1.0]])).item()
        2.0
    """

    def per_output(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return |p − t|; both arguments (B, C, *)."""
        return (apply_link(logits, self.link) - target).abs()

    def written(self) -> tuple[str, str] | None:
        """Return ℓ as a Python expression."""
        return "(p - t).abs()", ""
