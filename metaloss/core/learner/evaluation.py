"""The value of a model on all rows of some batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.core.learner.batches import Pair, as_batch
from metaloss.errors import MetalossError
from metaloss.inner.weighted import WeightedTargets, weighted_mean


@torch.no_grad()
def mean_over_rows(
    predict: Callable[[Any], tuple[Tensor, Any]],
    batches: Iterable[Pair],
    metric: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
) -> float:
    """Return the mean over rows of a metric, with the weights of the rows if there are any.

    Args:
        predict: Returns the raw outputs (B, C, *) for inputs (B, ...), and anything else.
        batches: (inputs, targets) pairs.
        metric: ``(raw outputs, targets) -> scalar``, a mean over rows.
        device: The device of the model.

    Raises:
        MetalossError: If there are no rows.
    """
    total, rows = 0.0, 0.0
    for pair in batches:
        inputs, targets = pytree.tree_map_only(
            Tensor, lambda value: value.to(device), as_batch("a batch", pair)
        )
        outputs, _ = predict(inputs)
        weighted = isinstance(targets, WeightedTargets)
        value = weighted_mean(metric, outputs, targets) if weighted else metric(outputs, targets)
        count = float(targets.weights.sum()) if weighted else len(targets)
        total += float(value) * count
        rows += count
    if not rows:
        raise MetalossError("evaluate() got no batches; expected one or more")
    return total / rows
