"""Handwritten digits, 8×8 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn.datasets import load_digits

from metaloss.data.number_source import ClassificationSource


@dataclass(frozen=True, kw_only=True)
class Digits(ClassificationSource):
    """1,797 handwritten digits of scikit-learn, 8×8 pixels, ten classes.

    Inputs (B, 1, 8, 8), standardised by all pixels of the training rows together.

    Reference:
        Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998 (the
        test set, as in scikit-learn).

    Example:
        >>> task = Digits(label_noise=0.5).build(seed=0)
        >>> [tuple(part.inputs.shape) for part in (task.train, task.valid, task.test)]
        [(1078, 1, 8, 8), (270, 1, 8, 8), (449, 1, 8, 8)]
    """

    title: ClassVar[str] = "digits"
    about: ClassVar[str] = "handwritten digits, 8×8, ten classes; error: share of wrong classes"
    classes: ClassVar[int] = 10
    per_feature: ClassVar[bool] = False

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """Return images (1797, 1, 8, 8), from 0 to 16, and labels (1797,)."""
        table = load_digits()
        return table.images[:, None].astype(np.float64), table.target.astype(np.int64)
