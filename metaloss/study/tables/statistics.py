"""The statistics of a table: mean ± std, a paired test, the correction for several tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from metaloss.errors import MetalossError

# With fewer than six pairs, the smallest possible two-sided p is 2 / 2⁵ = 0.0625.
FEWEST_PAIRS = 6
# Metrics are means in float32: differences below this share of the largest value are ties.
TIE = 1e-6
# The significance level.
SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class MeanStd:
    """The mean and the sample standard deviation (divisor n − 1; None for a single value).

    Example:
        >>> MeanStd.of([0.1, 0.2, 0.3]).show(decimals=3)
        '0.200 ± 0.100'
    """

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> MeanStd | None:
        """Return the statistics of the finite values; None if there are none."""
        finite = [float(value) for value in values if math.isfinite(value)]
        if not finite:
            return None
        n = len(finite)
        mean = math.fsum(finite) / n
        if n == 1:
            return cls(mean=mean, std=None, n=1)
        variance = math.fsum((value - mean) ** 2 for value in finite) / (n - 1)
        return cls(mean=mean, std=math.sqrt(variance), n=n)

    def show(self, decimals: int = 4) -> str:
        """Return the mean and, if it exists, ± std as text."""
        spread = "" if self.std is None else f" ± {self.std:.{decimals}f}"
        return f"{self.mean:.{decimals}f}{spread}"


def paired_wilcoxon(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the exact two-sided p of Wilcoxon's signed-rank test on pairs.

    The null distribution is that of the rank sum over all 2ᵐ signs of the m non-zero differences,
    given their ranks. It is exact with ties too, which are common among error rates of a small
    test split. Tied differences get their mean rank. Zero differences are ranked and then left out
    (Pratt).

    Args:
        first: (n,) finite values.
        second: (n,) finite values, paired by position.

    Returns:
        p in (0, 1]; None below ``FEWEST_PAIRS`` pairs.

    Raises:
        MetalossError: If the lengths differ or a value is not finite.

    Reference:
        Wilcoxon, "Individual comparisons by ranking methods", 1945; Pratt, "Remarks on zeros and
        ties in the Wilcoxon signed rank procedures", 1959.

    Example:
        >>> paired_wilcoxon([1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0])
        0.03125
        >>> paired_wilcoxon([1, 2], [0, 0]) is None
        True
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape or a.ndim != 1:
        raise MetalossError(f"paired test: got {a.size} and {b.size} values, expected pairs")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise MetalossError("paired test: every value must be finite")
    if a.size < FEWEST_PAIRS:
        return None
    difference = a - b
    doubled = _doubled_ranks(np.abs(difference), TIE * max(np.abs(a).max(), np.abs(b).max()))
    nonzero = doubled > 0
    positive = int(doubled[nonzero & (difference > 0)].sum())
    null = np.ones(1)
    for rank in doubled[nonzero]:
        # Both signs are equally likely: this rank adds to the positive sum with probability 1/2.
        longer = np.zeros(null.size + rank)
        longer[: null.size] += null / 2
        longer[rank:] += null / 2
        null = longer
    tail = min(null[: positive + 1].sum(), null[positive:].sum())
    return float(min(1.0, 2 * tail))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Return p values corrected by Holm's step-down method; None stays None.

    Reference:
        Holm, "A simple sequentially rejective multiple test procedure", 1979.

    Example:
        >>> holm([0.01, None, 0.04, 0.03])
        [0.03, None, 0.06, 0.06]
    """
    tested = sorted((p, index) for index, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    largest = 0.0
    for position, (p, index) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - position) * p))
        corrected[index] = largest
    return corrected


def _doubled_ranks(sizes: np.ndarray, tolerance: float) -> np.ndarray:
    """Return twice the mean ranks of ``sizes`` (n,), whole numbers; 0 for a size of zero.

    Neighbouring sorted sizes that differ by less than the tolerance are ties.
    """
    order = np.argsort(sizes, kind="stable")
    gaps = np.diff(sizes[order], prepend=0.0) > tolerance
    level = np.empty(sizes.size, dtype=int)
    level[order] = np.cumsum(gaps)
    doubled = np.rint(2 * rankdata(level)).astype(int)
    return np.where(level == 0, 0, doubled)
