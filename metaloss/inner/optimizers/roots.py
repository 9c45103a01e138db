"""A square root that can be differentiated at zero."""

from __future__ import annotations

import torch
from torch import Tensor


def safe_sqrt(x: Tensor) -> Tensor:
    """Return √max(x, 0), with derivative 0 and not ∞ where x ≤ 0.

    In Adam and RMSprop, √v is zero only if all gradients so far were zero. Then the first moment,
    which multiplies the derivative of √v, is zero as well. The right product is 0; the plain square
    root would give 0 · ∞ = NaN.
    """
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)
