"""A square root that can be differentiated at zero."""

from __future__ import annotations

import torch
from torch import Tensor


def safe_sqrt(x: Tensor) -> Tensor:
    """Return √max(x, 0) with slope 0, not ∞, where x ≤ 0.

    Adam's and RMSprop's √v is zero only where every gradient so far was zero. The first moment is
    then zero as well and multiplies the slope of √v, so that 0 is the true value of the product,
    where the plain square root would give 0 · ∞ = NaN.
    """
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)
