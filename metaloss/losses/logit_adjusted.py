"""Cross-entropy for long tails: raw outputs shifted by the classes' shares of the rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from metaloss.contracts import Task, TaskDependent
from metaloss.errors import MetalossError, check_range
from metaloss.losses.base import expect_classes
from metaloss.losses.criterion_text import criterion_text
from metaloss.losses.handcrafted import CrossEntropy
from metaloss.types import Link


@dataclass(frozen=True, kw_only=True)
class LogitAdjustedConfig(TaskDependent):
    """Options of ``logit_adjusted``."""

    tau: float = field(default=1.0, metadata={"help": "≥ 0; 0: cross-entropy"})
    shares: list[float] = field(
        default_factory=list,
        metadata={"help": "share of the rows of each class, > 0; []: those of the training rows"},
    )

    def __post_init__(self) -> None:
        check_range("loss.tau", self.tau, self.tau >= 0, "a number ≥ 0")
        positive = all(share > 0 for share in self.shares)
        check_range("loss.shares", self.shares, positive, "positive numbers")

    def for_task(self, task: Task) -> Self:
        """Return the options with the shares of the training labels, wrong ones included."""
        targets = task.train.targets
        if self.shares or task.link is not Link.softmax or targets.is_floating_point():
            return self
        counts = torch.bincount(targets[targets != task.ignore_index], minlength=task.outputs)
        # The logarithm of a share of 0 is infinite.
        return replace(self, shares=(counts.clamp(min=1) / counts.sum()).tolist())


class LogitAdjusted(CrossEntropy):
    """Cross-entropy of z + τ log π, z the raw outputs, π the classes' shares of the rows.

    A baseline for long tails: rare classes get a wider margin, so that z predicts as if all classes
    were equally frequent. A run takes ``shares`` from its task; elsewhere they must be given.

    Raises:
        MetalossError: With a link other than softmax, or without ``shares``.

    Reference:
        Menon et al., "Long-Tail Learning via Logit Adjustment", ICLR 2021, equation 10.

    Example:
        >>> loss = LogitAdjusted(LogitAdjustedConfig(shares=[0.9, 0.1]))
        >>> even = loss(torch.zeros(1, 2), torch.tensor([1]))
        >>> bool(torch.isclose(even, -torch.tensor(0.1).log()))
        True
    """

    Config = LogitAdjustedConfig

    links = (Link.softmax,)
    links_hint = " (classes)"

    def __init__(self, config: Any = None, **given: Any) -> None:
        super().__init__(config, **given)
        if not self.config.shares:
            raise MetalossError("loss.shares=[]: expected the share of the rows of each class")
        self.classes = len(self.config.shares)
        log_shares = torch.tensor(self.config.shares, dtype=torch.float32).log()
        self.register_buffer("log_shares", log_shares, persistent=False)

    log_shares: Tensor

    def adjusted(self, logits: Tensor) -> Tensor:
        """Return the raw outputs (B, C, *) plus τ log π."""
        expect_classes(self, logits)
        margins = self.config.tau * self.log_shares.view(-1, *[1] * (logits.dim() - 2))
        return logits + margins.to(logits.dtype)

    def python(self) -> str | None:
        """Return the source of ``criterion(outputs, target)``."""
        formula, helpers = self.written() or ("", "")
        shift = self.config.tau * self.log_shares
        return criterion_text(self, formula, helpers=helpers, shift=shift)
