"""Targets with a weight for each row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree as pytree


class WeightedTargets:
    """Targets (B, *) and the weights of their rows (B,), ≥ 0, in the place of a batch's targets.

    Example:
        >>> targets = WeightedTargets(torch.tensor([0, 1]), torch.tensor([1.0, 3.0]))
        >>> len(targets), targets[:1].weights
        (2, tensor([1.]))
    """

    def __init__(self, values: Tensor, weights: Tensor) -> None:
        self.values, self.weights = values, weights

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> WeightedTargets:
        return WeightedTargets(self.values[rows], self.weights[rows])

    @property
    def device(self) -> torch.device:
        """The device of the targets."""
        return self.values.device


def parts_of(targets: Any) -> tuple[Tensor, Tensor | None]:
    """Return the targets, and the weights of the rows or None."""
    if isinstance(targets, WeightedTargets):
        return targets.values, targets.weights
    return targets, None


def weighted_mean(
    loss: Callable[[Tensor, Tensor], Tensor],
    outputs: Tensor,
    targets: WeightedTargets,
    ignored: int | None = None,
) -> Tensor:
    """Return Σ wᵢ ℓᵢ / Σ wᵢ, where ℓᵢ is the loss of row i alone.

    Of rows (B, *) whose positions are partly ``ignored``, wᵢ is the weight of the positions that
    count, so that equal weights give the mean over all of them. A row that does not count may have
    any target.

    Example:
        >>> targets = WeightedTargets(torch.tensor([[0.0], [0.0]]), torch.tensor([1.0, 3.0]))
        >>> weighted_mean(torch.nn.functional.mse_loss, torch.tensor([[2.0], [0.0]]), targets)
        tensor(1.)
    """
    values, weights = targets.values, targets.weights
    if ignored is not None and not values.is_floating_point():
        weights = counted(targets, ignored).reshape(len(values), -1).sum(1)
    # The loss of a row without a counted target may be NaN, also in its derivative.
    counts = (weights > 0).reshape(-1, *[1] * (values.dim() - 1))
    values = torch.where(counts, values, torch.full_like(values, int(ignored == 0)))

    def alone(row: Tensor, target: Tensor) -> Tensor:
        return loss(row.unsqueeze(0), target.unsqueeze(0))

    each = vmap(alone)(outputs, values)
    weights = weights.to(each.dtype)
    total = weights.sum()
    return (weights * each).sum() / torch.where(total > 0, total, torch.ones_like(total))


def counted(targets: Any, ignored: int | None) -> Tensor:
    """Return how much the targets count: (B, *), the weights of the rows, 0 where ignored."""
    values, weights = parts_of(targets)
    counts = torch.ones(values.shape, dtype=torch.float64, device=values.device)
    if weights is not None:
        counts = counts * weights.reshape(-1, *[1] * (values.dim() - 1))
    if ignored is None or values.is_floating_point():
        return counts
    return counts * (values != ignored)


def estimate(value: Tensor, targets: Any, rows: Tensor, ignored: int | None) -> Tensor:
    """Return an unbiased estimate of a batch's mean loss from the mean over some of its rows.

    The mean is over the targets that count: their number in the rows is not that in the batch.
    """
    plain, weights = parts_of(targets)
    if weights is None and (ignored is None or plain.is_floating_point()):
        return value
    counts = counted(targets, ignored).to(value.dtype)
    share = counts[rows].mean() / counts.mean().clamp(min=1e-30)
    # A loss may be 0 / 0 where no target of the rows counts.
    return torch.where(share > 0, value * share, torch.zeros_like(value))


pytree.register_pytree_node(
    WeightedTargets,
    lambda targets: ([targets.values, targets.weights], None),
    lambda leaves, _: WeightedTargets(*leaves),
)
