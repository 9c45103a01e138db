"""What may be wrong with training rows: false labels, outliers, rare classes."""

from __future__ import annotations

import numpy as np

from metaloss.errors import MetalossError


def flip_labels(
    labels: np.ndarray, share: float, classes: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the labels with ``round(share · n)`` of them wrong: symmetric noise.

    A wrong label is drawn uniformly from the *other* classes, so that the share is exact.

    Args:
        labels: (n,) class indices.
        share: From 0 to below 1.
        classes: C, at least 2.
        rng: Decides which rows, and which classes.

    Example:
        >>> noisy = flip_labels(np.zeros(100, dtype=np.int64), 0.3, 10, np.random.default_rng(0))
        >>> int((noisy != 0).sum())
        30
    """
    wrong = _some(len(labels), share, rng)
    noisy = labels.copy()
    noisy[wrong] = (labels[wrong] + rng.integers(1, classes, size=len(wrong))) % classes
    return noisy


def add_outliers(
    targets: np.ndarray, share: float, size: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the targets with Gaussian noise added to ``round(share · n)`` rows.

    Args:
        targets: (n, C) real values.
        share: From 0 to below 1.
        size: Standard deviation of the noise, in the targets' units.
        rng: Decides which rows, and the noise.

    Example:
        >>> noisy = add_outliers(np.zeros((100, 1)), 0.3, 5.0, np.random.default_rng(0))
        >>> int((noisy != 0).sum())
        30
    """
    hit = _some(len(targets), share, rng)
    noisy = targets.copy()
    noisy[hit] += size * rng.standard_normal(targets[hit].shape)
    return noisy


def long_tail(
    labels: np.ndarray, ratio: float, classes: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the positions to keep, sorted, so that class sizes fall off exponentially.

    Class c keeps ``round(m · ratio^(−c / (C − 1)))`` rows: class 0 is the largest, the last class
    ``ratio`` times smaller, up to rounding to whole rows. m is the largest number for which every
    class has enough rows.

    Args:
        labels: (n,) class indices; every class occurs.
        ratio: At least 1; 1 makes all classes equally large.
        classes: C, at least 2.
        rng: Decides which rows of a class stay.

    Raises:
        MetalossError: If the smallest class would keep less than one row.

    Reference:
        The profile is that of Cui, Jia, Lin, Song & Belongie, "Class-Balanced Loss Based on
        Effective Number of Samples", CVPR 2019, section 5.1.

    Example:
        >>> labels = np.repeat([0, 1, 2], 100)
        >>> kept = long_tail(labels, 25, 3, np.random.default_rng(0))
        >>> np.bincount(labels[kept]).tolist()
        [100, 20, 4]
    """
    profile = float(ratio) ** (-np.arange(classes) / (classes - 1))
    largest = int((np.bincount(labels, minlength=classes) / profile).min())
    if largest < ratio:
        raise MetalossError(
            f"task.imbalance={ratio}: the smallest class would keep no row; expected at most "
            f"{largest}, the rows of the largest class"
        )
    keep = np.round(largest * profile).astype(int)
    parts = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in enumerate(keep)]
    return np.sort(np.concatenate(parts))


def _some(rows: int, share: float, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(rows)[: round(share * rows)]
