"""Errors in training rows: wrong labels, outliers, rare classes, noisy inputs."""

from __future__ import annotations

from enum import Enum

import numpy as np

from metaloss.errors import MetalossError


class NoiseKind(Enum):
    """Which class a wrong label has: any other one (symmetric), or the next one (pair)."""

    symmetric = "symmetric"
    pair = "pair"


def flip_labels(
    labels: np.ndarray,
    share: float,
    classes: int,
    rng: np.random.Generator,
    kind: NoiseKind = NoiseKind.symmetric,
) -> np.ndarray:
    """Return the labels with exactly ``round(share · n)`` of them wrong.

    Symmetric noise draws a wrong label uniformly from the *other* classes. Pair noise takes the
    next class; after the last comes the first.

    Args:
        labels: (n,) class indices.
        share: From 0 to below 1.
        classes: C, at least 2.
        rng: Determines the rows and their classes. Both kinds change the same rows.
        kind: Symmetric or pair.

    Reference:
        Han et al., "Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy
        Labels", NeurIPS 2018, section 4 (pair flipping).

    Example:
        >>> noisy = flip_labels(np.zeros(100, dtype=np.int64), 0.3, 10, np.random.default_rng(0))
        >>> int((noisy != 0).sum())
        30
    """
    wrong = _some(len(labels), share, rng)
    noisy = labels.copy()
    pair = kind is NoiseKind.pair
    steps = 1 if pair else rng.integers(1, classes, size=len(wrong))
    noisy[wrong] = (labels[wrong] + steps) % classes
    return noisy


def add_outliers(
    targets: np.ndarray, share: float, size: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the targets with Gaussian noise added to ``round(share · n)`` rows.

    Args:
        targets: (n, C) real values.
        share: From 0 to below 1.
        size: The standard deviation of the noise, in units of the targets.
        rng: Determines the rows and the noise.

    Example:
        >>> noisy = add_outliers(np.zeros((100, 1)), 0.3, 5.0, np.random.default_rng(0))
        >>> int((noisy != 0).sum())
        30
    """
    hit = _some(len(targets), share, rng)
    noisy = targets.copy()
    noisy[hit] += size * rng.standard_normal(targets[hit].shape)
    return noisy


def add_input_noise(
    inputs: np.ndarray, size: float, rng: np.random.Generator, *, per_feature: bool
) -> np.ndarray:
    """Return float32 inputs with fixed Gaussian noise.

    Args:
        inputs: (n, ...) floats.
        size: The standard deviation of the noise, relative to that of the inputs; 0: none.
        rng: Determines the noise.
        per_feature: Whether it is relative to the deviation of each feature, so that a constant one
            does not change, or to the deviation over all values.

    Example:
        >>> inputs = np.array([[0.0, 5.0], [2.0, 5.0]], dtype=np.float32)
        >>> noisy = add_input_noise(inputs, 0.1, np.random.default_rng(0), per_feature=True)
        >>> (noisy != inputs).tolist()
        [[True, False], [True, False]]
    """
    if size == 0:
        return inputs
    unit = inputs.std(axis=0 if per_feature else None)
    return inputs + size * unit * rng.standard_normal(inputs.shape, dtype=np.float32)


def long_tail(
    labels: np.ndarray, ratio: float, classes: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the positions to keep, sorted, so that class sizes decrease exponentially.

    Class c keeps ``round(m · ratio^(−c / (C − 1)))`` rows. So class 0 is the largest, and the last
    class is ``ratio`` times smaller, up to rounding. m is the largest number for which every class
    has enough rows.

    Args:
        labels: (n,) class indices with all classes.
        ratio: The largest class over the smallest one, ≥ 1.
        classes: C, at least 2.
        rng: Determines which rows of a class are kept.

    Raises:
        MetalossError: If the smallest class would keep no row.

    Reference:
        Cui, Jia, Lin, Song & Belongie, "Class-Balanced Loss Based on Effective Number of Samples",
        CVPR 2019, section 5.1.

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
