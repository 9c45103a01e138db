"""Shift and scale, fitted on training rows and applied to all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Scaling(NamedTuple):
    """``x -> (x − mean) / std``."""

    mean: np.ndarray
    std: np.ndarray

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return the scaled values, the same shape."""
        return (values - self.mean) / self.std


def fit_scaling(values: np.ndarray, *, per_feature: bool) -> Scaling:
    """Return the scaling that gives ``values`` mean 0 and deviation 1.

    Args:
        values: (n, ...) training rows.
        per_feature: One mean and deviation for each feature. Otherwise one of each for all
            features together, as is usual for images and signals: it keeps neighbours
            comparable, and a pixel that is nearly always empty is not blown up.

    Example:
        >>> scale = fit_scaling(np.array([[0.0, 5.0], [2.0, 5.0]]), per_feature=True)
        >>> scale(np.array([[4.0, 6.0]])).tolist()
        [[3.0, 1.0]]
    """
    axis = 0 if per_feature else None
    std = np.asarray(values.std(axis=axis))
    # A feature that never changes is only centred; its computed deviation may be a rounding error.
    changes = std > 1e-12 * np.abs(values).max(axis=axis)
    return Scaling(np.asarray(values.mean(axis=axis)), np.where(changes, std, 1.0))
