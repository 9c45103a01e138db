"""Targets with what is known of their rows: a weight, and what the learned loss sees of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils import _pytree as pytree

from metaloss.errors import MetalossError
from metaloss.types import Batch, Row, StoredStep, Tensors


class WeightedTargets:
    """Targets (B, *), the weights of their rows (B,) ≥ 0, and a `Row`, in a batch's targets' place.

    Example:
        >>> targets = WeightedTargets(torch.tensor([0, 1]), torch.tensor([1.0, 3.0]))
        >>> len(targets), targets[:1].weights
        (2, tensor([1.]))
    """

    def __init__(
        self, values: Tensor, weights: Tensor | None = None, row: Row | None = None
    ) -> None:
        self.values, self.weights, self.row = values, weights, row

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> WeightedTargets:
        found: WeightedTargets = pytree.tree_map(lambda value: value[rows], self)
        return found

    @property
    def device(self) -> torch.device:
        """The device of the targets."""
        return self.values.device


def parts_of(targets: Any) -> tuple[Tensor, Tensor | None]:
    """Return the targets, and the weights of the rows or None."""
    if isinstance(targets, WeightedTargets):
        return targets.values, targets.weights
    return targets, None


def row_of(targets: Any) -> Row:
    """Return what is known of the rows; an empty `Row` if nothing is."""
    return getattr(targets, "row", None) or Row()


def with_row(batch: Batch, **known: Tensor | None) -> Batch:
    """Return the batch with more of its `Row`."""
    values, weights = parts_of(batch.targets)
    row = row_of(batch.targets)._replace(**known)
    targets: Any = WeightedTargets(values, weights, row)
    return batch._replace(targets=targets)


def value_of(
    loss: nn.Module, phi: Tensors, outputs: Tensor, targets: Any, tied: bool = True
) -> Tensor:
    """Return L_φ, given the weights of the rows, and their `Row` if the loss sees any of it."""
    values, weights = parts_of(targets)
    given = (outputs, values) if weights is None else (outputs, values, weights)
    named = {"row": row_of(targets)} if sees(loss) else {}
    return functional_call(loss, phi, given, named, tie_weights=tied)


def sees(loss: nn.Module) -> frozenset[str]:
    """Return the fields of `Row` that a loss sees."""
    seen: frozenset[str] = getattr(loss, "sees", frozenset())
    return seen


def held(problem: Any, step: StoredStep) -> StoredStep:
    """Return the step with its outputs as a constant of the loss, if the loss sees them.

    For differences in θ, whose loss must see the same constants at both points.
    """
    if "outputs" not in sees(problem.loss):
        return step
    with torch.no_grad():
        outputs, _ = problem.predict(step.state.params, step.state.buffers, step.batch, step.key)
    return step._replace(batch=with_row(step.batch, outputs=outputs.detach()))


def heads_of(targets: Any, heads: int) -> list[Any]:
    """Return the targets of each of several outputs, whose `Row` may hold (B, C, *, H) outputs."""
    outputs = row_of(targets).outputs
    if outputs is None:
        return [targets] * heads
    values, weights = parts_of(targets)
    rows = [row_of(targets)._replace(outputs=one) for one in outputs.unbind(-1)]
    return [WeightedTargets(values, weights, row) for row in rows]


def by_class(targets: Any, weights: Tensor, ignored: int | None) -> WeightedTargets:
    """Return class indices (B,) with the weights (C,) of their classes; ignored ones have 0.

    What else is known of the rows stays.

    Example:
        >>> by_class(torch.tensor([1, 0, -100]), torch.tensor([1.0, 3.0]), -100).weights
        tensor([3., 1., 0.])
    """
    values, _ = parts_of(targets)
    found = weights[values.clamp(0, len(weights) - 1)]
    if ignored is not None:
        found = torch.where(values == ignored, torch.zeros_like(found), found)
    return WeightedTargets(values, found, getattr(targets, "row", None))


def weighted_mean(
    loss: Callable[[Tensor, Tensor], Tensor],
    outputs: Tensor,
    targets: WeightedTargets,
    ignored: int | None = None,
) -> Tensor:
    """Return the weighted mean of the rows' own losses; without weights, the loss of all rows.

    Of rows (B, *) whose positions are partly ``ignored``, a row's weight is that of the positions
    that count, so that equal weights give the mean over all of them. A row that does not count may
    have any target.

    Example:
        >>> targets = WeightedTargets(torch.tensor([[0.0], [0.0]]), torch.tensor([1.0, 3.0]))
        >>> weighted_mean(torch.nn.functional.mse_loss, torch.tensor([[2.0], [0.0]]), targets)
        tensor(1.)
    """
    if targets.weights is None:
        return loss(outputs, targets.values)
    values, weights = targets.values, targets.weights
    if ignored is not None and not values.is_floating_point():
        weights = counted(targets, ignored).reshape(len(values), -1).sum(1)
    # The loss of a row without a counted target may be NaN, also in its derivative.
    counts = (weights > 0).reshape(-1, *[1] * (values.dim() - 1))
    values = torch.where(counts, values, torch.full_like(values, int(ignored == 0)))

    def alone(row: Tensor, target: Tensor) -> Tensor:
        return loss(row.unsqueeze(0), target.unsqueeze(0))

    try:
        each = vmap(alone)(outputs, values)
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        name = getattr(loss, "__name__", type(loss).__name__)
        reason = str(error).split(". ")[0]
        raise MetalossError(
            f"with weights of rows, {name} is computed for each row by torch.func.vmap, and fails: "
            f"{reason}"
        ) from error
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


def named_values(targets: WeightedTargets) -> dict[str, Tensor]:
    """Return the tensors of the targets by name, for a checkpoint."""
    named = {"values": targets.values, "weights": targets.weights}
    named |= row_of(targets)._asdict()
    return {name: value for name, value in named.items() if value is not None}


def of_values(named: dict[str, Tensor]) -> WeightedTargets:
    """Return the targets from the result of `named_values`."""
    left = dict(named)
    values, weights = left.pop("values"), left.pop("weights", None)
    return WeightedTargets(values, weights, Row(**left) if left else None)


def _flat(targets: WeightedTargets) -> tuple[list[Tensor], tuple[str, ...]]:
    named = named_values(targets)
    return list(named.values()), tuple(named)


# What is not known has no leaf, so that functions of all leaves may expect tensors.
pytree.register_pytree_node(
    WeightedTargets,
    _flat,
    lambda leaves, names: of_values(dict(zip(names, leaves, strict=True))),
)
