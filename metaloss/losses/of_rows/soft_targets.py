"""Cross-entropy with learned targets: of label, prediction and earlier predictions of the row."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaloss.errors import MetalossError, check_range
from metaloss.losses.of_rows.base import RowLoss, known, of_row
from metaloss.losses.rows import cross_entropy, mean_prediction
from metaloss.options import Options
from metaloss.types import Row

# Inputs of the network lie between -_REACH/2 and _REACH/2, so that it can bend between 0 and 1.
_REACH = 4.0
# Factors of prediction and average stay within ±_LARGEST, that of the label below exp(_LARGEST).
_LARGEST = 3.0


@dataclass(frozen=True, kw_only=True)
class SoftTargetsConfig(Options, group="loss"):
    """Options of ``soft_targets``."""

    hidden: list[int] = field(
        default_factory=lambda: [32, 32], metadata={"help": "widths of the hidden layers"}
    )
    robustness: float = field(
        default=3.0,
        metadata={"help": "r ≥ 0: at first a label counts p / (p + r/C); 0: cross-entropy"},
    )
    smoothing: float = field(
        default=0.1, metadata={"help": "label smoothing of the initial targets, in [0, 1)"}
    )
    average: bool = field(
        default=True, metadata={"help": "see the mean of a row's earlier predictions (in runs)"}
    )
    decay: float = field(
        default=0.9,
        metadata={
            "help": "of that moving average, in [0, 1)",
            "needs": (lambda own: own.average, "loss.average=true"),
        },
    )

    def __post_init__(self) -> None:
        if not self.hidden or any(width < 1 for width in self.hidden):
            raise MetalossError(f"loss.hidden={self.hidden}: expected one or more widths ≥ 1")
        check_range("loss.robustness", self.robustness, self.robustness >= 0, "a number ≥ 0")
        for name in ("smoothing", "decay"):
            value = getattr(self, name)
            check_range(f"loss.{name}", value, 0 <= value < 1, "a number in [0, 1)")


class SoftTargets(RowLoss):
    r"""−Σ_c s_c log p_c, the targets s a learned function of label, prediction and average.

    ``s_c = w y_c p_c / (p_c + r/C) + m p_c + u a_c``, with y the smoothed label, p the prediction
    and a the mean of the row's earlier predictions. A network with parameters φ gives w, m and u
    for each class, from y_c, p_c, a_c and from p and a at the row's label. All of s is constant: no
    gradient flows through it, so that ∂L/∂z = p Σ s − s. The network begins at w = 1, m = u = 0.

    Every loss of target and prediction with a softmax, such as the `mlp` of AdaLFL, moves z along
    targets of this kind: with ``s_c = −p_c ∂ℓ/∂p_c``. Here they are learned themselves. That needs
    no fit before the first step, and cross-entropy (r = 0), which is steep without bound at small
    p, is one of them. w stays between e⁻³ and e³, m and u between −3 and 3: otherwise the loss
    grows without end, since the one-step horizon rewards it.

    Args:
        config: The options.
        given: As for `metaloss.losses.base.LearnedLoss`.

    Raises:
        MetalossError: With a link other than softmax, or if an option is out of range.

    Reference:
        Targets out of label and own prediction, with learned factors: Wu et al., "Learning to
        Purify Noisy Labels via Meta Soft Label Corrector", AAAI 2021, section 3. The form above,
        its bounds and its start are this project's.

    Example:
        >>> loss = SoftTargets(SoftTargetsConfig(robustness=0.0, smoothing=0.0))
        >>> loss(torch.zeros(1, 2), torch.tensor([0]))  # cross-entropy: log 2
        tensor(0.6931, grad_fn=<DivBackward0>)
    """

    Config = SoftTargetsConfig

    def __init__(self, config: Any = None, **given: Any) -> None:
        super().__init__(config, **given)
        average = self.config.average
        self.sees = frozenset({"outputs", "average", "visits"} if average else {"outputs"})
        self.recalls = self.config.decay if average else 0.0
        widths = [5 if average else 3, *self.config.hidden]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.last = nn.Linear(widths[-1], 3 if average else 2)
        for values in self.last.parameters():
            nn.init.zeros_(values)

    def targets(self, target: Tensor, row: Row) -> Tensor:
        """Return s (B, C, *) for encoded labels (B, C, *)."""
        (outputs,) = known(row, "outputs")
        shares = outputs.softmax(1)
        seen = [shares]
        if self.config.average:
            mean = mean_prediction(row, self.recalls, self.link)
            seen.append(of_row(mean, shares).expand_as(shares))
        at_label = [(target * one).sum(1, keepdim=True).expand_as(one) for one in seen]
        hidden = _REACH * (torch.stack([target, *seen, *at_label], -1) - 0.5)
        for layer in self.layers:
            hidden = F.silu(layer(hidden))
        factors = _LARGEST * (self.last(hidden) / _LARGEST).tanh()
        classes, smoothing = shares.shape[1], self.config.smoothing
        label = (1 - smoothing) * target + smoothing / classes
        if self.config.robustness:
            label = label * shares / (shares + self.config.robustness / classes)
        found = factors[..., 0].exp() * label
        for k, one in enumerate(seen, 1):
            found = found + factors[..., k] * one
        return found

    def per_row(self, logits: Tensor, target: Tensor, row: Row) -> Tensor:
        """Return the loss (B, *) of each row; see the base class."""
        return cross_entropy(logits, self.targets(target, row))
