"""Disease progression from ten measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn.datasets import load_diabetes

from metaloss.data.number_source import RegressionSource


@dataclass(frozen=True, kw_only=True)
class Diabetes(RegressionSource):
    """442 patients of scikit-learn's table, ten measurements, disease progression a year later.

    Inputs (B, 10), each measurement standardised; targets (B, 1). ``mse`` is in units of the
    variance of the training targets before corruption.

    Reference:
        Efron, Hastie, Johnstone & Tibshirani, "Least Angle Regression", Annals of Statistics,
        2004.

    Example:
        >>> task = Diabetes().build(seed=0)
        >>> [tuple(part.inputs.shape) for part in (task.train, task.valid, task.test)]
        [(266, 10), (66, 10), (110, 10)]
    """

    title: ClassVar[str] = "diabetes"
    about: ClassVar[str] = (
        "disease progression from ten measurements; mse: in units of the variance of the "
        "training targets before corruption"
    )

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """Return measurements (442, 10) in their own units and progression (442, 1)."""
        # scikit-learn's own scaling uses all rows, including test rows.
        table = load_diabetes(scaled=False)
        return table.data.astype(np.float64), table.target.astype(np.float64)[:, None]
