"""The value of a model on all rows of some batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.core.learner.batches import Pair, as_batch, refuse_class_weights
from metaloss.errors import MetalossError
from metaloss.inner.weighted import WeightedTargets, counted, weighted_mean


@torch.no_grad()
def mean_over_rows(
    predict: Callable[[Any], tuple[Tensor, Any]],
    batches: Iterable[Pair],
    metric: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
    ignored: int | None,
) -> float:
    """Return the mean over rows of a metric, with the weights of the rows if there are any.

    Of targets (B, *), every position that is not ``ignored`` counts as much as any other.

    ``predict`` returns the raw outputs (B, C, *) for inputs (B, ...), and anything else. ``metric``
    is ``(raw outputs, targets) -> scalar``, a mean over rows.

    Raises:
        MetalossError: If there are no rows, or if they have weights and classes have some too.
    """
    total, rows = 0.0, 0.0
    for pair in batches:
        inputs, targets = pytree.tree_map_only(
            Tensor, lambda value: value.to(device), as_batch("a batch", pair)
        )
        outputs, _ = predict(inputs)
        count = float(counted(targets, ignored).sum())
        if not count:
            continue
        if isinstance(targets, WeightedTargets):
            refuse_class_weights(metric, "the metric")
            value = weighted_mean(metric, outputs, targets, ignored)
        else:
            value = metric(outputs, targets)
        try:
            total += float(value) * count
        except (TypeError, ValueError, RuntimeError) as error:
            found = f"the shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise MetalossError(
                f"the metric returns {found}: expected a scalar, a mean over rows"
            ) from error
        rows += count
    if not rows:
        raise MetalossError("evaluate() got no rows that count; expected one or more")
    return total / rows
