"""Moving averages of named tensors: θ, buffers, φ."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metaloss.types import Tensors


def moved_towards(old: Tensors, new: Tensors, share: Any) -> Tensors:
    """Return old + share · (new − old) for each tensor; integers, such as counts, are the new ones.

    Args:
        old: The averages by name.
        new: The values by name.
        share: From 0 to 1: a number, or a 0-d tensor, whose type does not change that of the
            averages.

    Example:
        >>> moved_towards({"w": torch.zeros(1)}, {"w": torch.ones(1)}, 0.25)
        {'w': tensor([0.2500])}
    """
    found = {}
    for name, before in old.items():
        value = new[name].detach()
        wide = before.is_floating_point() or before.is_complex()
        found[name] = (before + share * (value - before)).to(before.dtype) if wide else value
    return found


def warmed_up(decay: float, count: Tensor) -> Tensor:
    """Return the decay of an average after ``count`` values: min(decay, (1 + n) / (10 + n)).

    So a short run's average does not hang on its first values: it reaches back over a tenth of the
    values at most. This is the rule of TensorFlow's ``ExponentialMovingAverage(num_updates=n)``.

    Args:
        decay: From 0 to 1.
        count: (), an integer.

    Example:
        >>> [round(float(warmed_up(0.99, torch.tensor(n))), 3) for n in (0, 90, 10000)]
        [0.1, 0.91, 0.99]
    """
    count = count.to(torch.float64)
    return ((1 + count) / (10 + count)).clamp(max=decay)
