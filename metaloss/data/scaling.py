"""Standardisation, fitted on training rows and applied to all."""

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
        per_feature: Whether each feature has its own mean and deviation. Otherwise all features
            have the same, as is usual for images and signals: a pixel that is nearly constant is
            not scaled up.

    Example:
        >>> scale = fit_scaling(np.array([[0.0, 5.0], [2.0, 5.0]]), per_feature=True)
        >>> scale(np.array([[4.0, 6.0]])).tolist()
        [[3.0, 1.0]]
    """
    axis = 0 if per_feature else None
    # Squares of very large or small numbers overflow in float64. A factor of a power of two is
    # exact.
    largest = np.abs(values).max(axis=axis)
    extreme = (largest > 1e150) | ((largest < 1e-150) & (largest > 0))
    unit = np.where(extreme, np.exp2(np.frexp(largest)[1] - 1.0), 1.0)
    if extreme.any():
        scaled = fit_scaling(values / unit, per_feature=per_feature)
        return Scaling(scaled.mean * unit, scaled.std * unit)
    std = np.asarray(values.std(axis=axis))
    # A constant feature is only centred; its computed deviation may be a rounding error.
    changes = std > 1e-12 * largest
    return Scaling(np.asarray(values.mean(axis=axis)), np.where(changes, std, 1.0))


def fit_channels(pixels: np.ndarray) -> Scaling:
    """Return the scaling that gives every channel of ``pixels`` mean 0 and deviation 1.

    Sums are computed in integers, exactly and without a float copy of all pixels. Scaled pixels are
    float32.

    Args:
        pixels: (n, C, H, W) uint8 training rows.

    Example:
        >>> pixels = np.array([[[[0, 255]]], [[[0, 255]]]], dtype=np.uint8)
        >>> fit_channels(pixels)(pixels)[0].tolist()
        [[[-1.0, 1.0]]]
    """
    axes, count = (0, 2, 3), pixels[:, 0].size
    squares = np.square(pixels, dtype=np.uint16)  # 255² fits
    total, of_squares = (
        one.sum(axis=axes, dtype=np.int64, keepdims=True)[0] for one in (pixels, squares)
    )
    return scaling_of_sums(total, of_squares, count)


def scaling_of_sums(total: np.ndarray, squares: np.ndarray, count: int) -> Scaling:
    """Return the scaling in float32 from sums of values, and of their squares, over ``count``."""
    mean = total / count
    variance = squares / count - mean**2
    std = np.sqrt(np.where(variance > 1e-9, variance, 1.0))
    return Scaling(mean.astype(np.float32), std.astype(np.float32))


def as_float32(values: np.ndarray) -> np.ndarray:
    """Return the values as float32; too large ones become infinite, which is checked later."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)
