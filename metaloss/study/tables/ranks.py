"""Average ranks over the blocks of a study: Friedman's test, Nemenyi's critical difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from metaloss.errors import MetalossError
from metaloss.study.tables.statistics import SIGNIFICANT, TIE
from metaloss.study.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The mean ranks of k rows over N blocks. Rank 1 is the best.

    Attributes:
        means: Mean rank by row, the best first.
        blocks: The N blocks.
        critical: The critical difference: between rows whose mean ranks are closer there is no
            significant difference (Nemenyi).
        statistic, p: Friedman's χ² and its p; None for fewer than three rows, or if all rows are
            equal in every block.
    """

    means: dict[str, float]
    blocks: tuple[str, ...]
    critical: float
    statistic: float | None
    p: float | None


def average_ranks(tables: Mapping[str, Table]) -> Ranks | None:
    """Return the mean ranks of rows over blocks; rows aside have none.

    In each block rows are ranked by their mean. A row with more runs without a finite value ranks
    below one with fewer. Ties get their mean rank. Ranks are comparable only between blocks with
    the same rows, so only the largest set of blocks with exactly the same rows is used. Of sets of
    equal size the one with more rows is used, then the one that is named first.

    Args:
        tables: One for each block, by name.

    Returns:
        The ranks; None if no two blocks have the same two rows.

    Reference:
        Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006,
        section 3.2.2.
    """
    shared: dict[frozenset[str], list[str]] = {}
    for name, table in tables.items():
        competing = frozenset(line.name for line in table.rivals)
        if len(competing) > 1:
            shared.setdefault(competing, []).append(name)
    if not shared:
        return None
    rows, blocks = max(shared.items(), key=lambda item: (len(item[1]), len(item[0])))
    if len(blocks) < 2:
        return None
    # Sets have no order, so use that of the first table.
    names = [line.name for line in tables[blocks[0]].lines if line.name in rows]
    ranks = np.array([_ranks(tables[block], names) for block in blocks])  # (N, k)
    statistic, p = _friedman(ranks)
    means = dict(zip(names, ranks.mean(axis=0).tolist(), strict=True))
    return Ranks(
        means=dict(sorted(means.items(), key=lambda item: item[1])),
        blocks=tuple(blocks),
        critical=critical_difference(len(names), len(blocks)),
        statistic=statistic,
        p=p,
    )


def critical_difference(k: int, n: int, *, alpha: float = SIGNIFICANT) -> float:
    """Return the difference of mean ranks that is significant by Nemenyi's test.

    CD = q_{α,k} √(k(k + 1) / (6N)); q is the 1 − α quantile of the studentized range with infinite
    degrees of freedom, divided by √2.

    Args:
        k: The number of rows, ≥ 2.
        n: The number of blocks, ≥ 1.
        alpha: The level, in (0, 1).

    Raises:
        MetalossError: If a number is out of its range.

    Reference:
        Demšar 2006, section 3.2.2 and table 5(a).

    Example:
        >>> round(critical_difference(4, 14), 2)
        1.25
    """
    if k < 2 or n < 1 or not 0 < alpha < 1:
        raise MetalossError(f"critical difference: got {k} rows, {n} blocks, α={alpha}")
    q = float(studentized_range.ppf(1 - alpha, k, math.inf)) / math.sqrt(2)
    return q * math.sqrt(k * (k + 1) / (6 * n))


def alike(ranks: Sequence[float], critical: float) -> list[tuple[int, int]]:
    """Return the widest spans of sorted ranks within the critical difference: (first, last).

    Spans of a single rank, and spans inside another one, are left out.

    Example:
        >>> alike([1.0, 2.0, 2.5, 5.0], 1.5)
        [(0, 2)]
    """
    spans: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(i for i in range(first, len(ranks)) if ranks[i] - rank <= critical)
        if last > first and (not spans or last > spans[-1][1]):
            spans.append((first, last))
    return spans


def _ranks(table: Table, names: Sequence[str]) -> np.ndarray:
    """Return the ranks (k,) of rows in one block."""
    lost, means = np.array([table.standing(table.by_name[name]) for name in names]).T
    tolerance = TIE * np.abs(means[np.isfinite(means)]).max(initial=0.0)
    order = np.lexsort((means, lost))
    # Values that differ only by rounding are a tie, and two infinities (whose difference is NaN).
    with np.errstate(invalid="ignore"):
        gaps = (np.diff(means[order]) > tolerance) | (np.diff(lost[order]) > 0)
    level = np.empty(len(names), dtype=int)
    level[order] = np.concatenate([[0], np.cumsum(gaps)])
    return rankdata(level)


def _friedman(ranks: np.ndarray) -> tuple[float | None, float | None]:
    if ranks.shape[1] < 3 or (ranks == ranks[:, :1]).all():
        return None, None
    found = friedmanchisquare(*ranks.T)
    return float(found.statistic), float(found.pvalue)
