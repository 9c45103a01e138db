"""Meta-Weight-Net and CMW-Net: the weight of a row as a learned function of its loss."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from metaloss.contracts import Task, TaskDependent
from metaloss.errors import MetalossError, check_range
from metaloss.losses.base import Weighed
from metaloss.losses.of_rows.base import RowLoss, class_counts, known
from metaloss.losses.rows import cross_entropy
from metaloss.types import Row

# Cross-entropies between which the network's kinks lie.
_RANGE = 3.0


@dataclass(frozen=True, kw_only=True)
class MetaWeightConfig(TaskDependent):
    """Options of ``mwn``."""

    hidden: int = field(default=100, metadata={"help": "width of the hidden layer, ≥ 1"})
    normalize: bool = field(
        default=False, metadata={"help": "divide by the sum of the weights in the batch"}
    )
    clusters: int = field(
        default=1,
        metadata={"help": "groups of classes of similar size, each with a weight (CMW-Net); ≥ 1"},
    )
    cluster_of: list[int] = field(
        default_factory=list,
        metadata={"help": "group of each class, from 0; []: by the training labels"},
    )

    def __post_init__(self) -> None:
        for name in ("hidden", "clusters"):
            value = getattr(self, name)
            check_range(f"loss.{name}", value, value >= 1, "a number ≥ 1")
        if any(not 0 <= group < self.clusters for group in self.cluster_of):
            raise MetalossError(
                f"loss.cluster_of={self.cluster_of}: expected numbers from 0 to "
                f"{self.clusters - 1} (loss.clusters={self.clusters})"
            )

    def for_task(self, task: Task) -> Self:
        """Return the options with the groups of the task's classes."""
        if self.clusters == 1 or self.cluster_of:
            return self
        counts = class_counts(task)
        if counts is None:
            return self
        return replace(self, cluster_of=groups_of(counts, self.clusters))


class MetaWeight(RowLoss):
    """The row's cross-entropy times a weight, which a network V computes from the cross-entropy.

    V has one hidden layer and returns weights in (0, 1); φ is its parameters. It sees the
    cross-entropy as a constant. With ``normalize``, the loss of a batch is the weighted sum divided
    by the sum of the weights, as in the public code. With ``clusters=K``, V has K outputs, and a
    row takes that of its class's group: CMW-Net. The kinks of the hidden units (ReLU) are spread
    evenly over losses from 0 to 3; drawn at random, a quarter of them would never be active.

    Raises:
        MetalossError: With a link other than softmax, or with ``clusters`` and without
            ``cluster_of``.

    Reference:
        Shu et al., "Meta-Weight-Net: Learning an Explicit Mapping For Sample Weighting", NeurIPS
        2019, equation 2; Shu et al., "CMW-Net", TPAMI 2023, arXiv 2202.05613, section 3.

    Example:
        >>> sum(p.numel() for p in MetaWeight().parameters())  # 1–100–1
        301
    """

    Config = MetaWeightConfig
    sees = frozenset({"outputs"})

    def __init__(self, config: Any = None, **given: Any) -> None:
        super().__init__(config, **given)
        config = self.config
        self.classes = len(config.cluster_of)
        if config.clusters > 1 and not config.cluster_of:
            raise MetalossError("loss.cluster_of=[]: expected the group of each class")
        self.first, self.last = (
            nn.Linear(1, config.hidden),
            nn.Linear(config.hidden, config.clusters),
        )
        with torch.no_grad():
            self.first.weight.fill_(1.0)
            self.first.bias.copy_(-torch.arange(config.hidden) * _RANGE / config.hidden)
        groups = torch.tensor(config.cluster_of, dtype=torch.int64)
        chosen = (groups.unsqueeze(1) == torch.arange(config.clusters)).float()
        self.register_buffer("chosen", chosen, persistent=False)

    chosen: Tensor

    def weights(self, losses: Tensor) -> Tensor:
        """Return the weights (B, *, K) of rows with these cross-entropies (B, *)."""
        hidden = self.first(losses.unsqueeze(-1)).relu()
        found: Tensor = self.last(hidden).sigmoid()
        return found

    def per_row(self, logits: Tensor, target: Tensor, row: Row) -> Tensor | Weighed:
        """Return the loss (B, *) of each row, and its weight; see the base class."""
        (outputs,) = known(row, "outputs")
        values = cross_entropy(logits, target)
        weights = self.weights(cross_entropy(outputs, target))
        if self.config.clusters > 1:
            # (B, C, *) targets and (C, K) groups: the share of each group, (B, *, K).
            weights = weights * (target.movedim(1, -1) @ self.chosen)
        weight = weights.sum(-1)
        return Weighed(values, weight) if self.config.normalize else weight * values


def groups_of(counts: list[float], clusters: int) -> list[int]:
    """Return the group of each class, from 0, the rarest: k-means of the logarithms of their sizes.

    The public code groups the sizes themselves.

    Example:
        >>> groups_of([500.0, 10.0, 480.0, 90.0, 11.0], 3)
        [2, 0, 2, 1, 0]
    """
    sizes = torch.tensor(counts, dtype=torch.float64).log()
    centres = torch.quantile(sizes, torch.linspace(0, 1, clusters, dtype=torch.float64))
    for _ in range(100):
        near = (sizes.unsqueeze(1) - centres).abs().argmin(1)
        means = [
            sizes[near == k].mean() if (near == k).any() else centres[k] for k in range(clusters)
        ]
        centres = torch.stack(means)
    found: list[int] = near.tolist()
    return found
