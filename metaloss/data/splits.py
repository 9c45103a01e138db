"""Splits into training, validation and test rows; every row is in one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metaloss.errors import MetalossError


class Split(NamedTuple):
    """Row numbers of the three splits: sorted, disjoint 1-d int64 arrays."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def split_rows(
    rows: int,
    valid_fraction: float,
    test_fraction: float,
    rng: np.random.Generator,
    *,
    strata: np.ndarray | None = None,
) -> Split:
    """Split ``range(rows)`` into three parts of exact sizes.

    The test part has ``round(test_fraction · rows)`` rows, the validation part (the trusted rows)
    ``round(valid_fraction · rows)``, the training part the rest.

    Args:
        rows: The number of rows.
        valid_fraction: Share of all rows, from 0 to 1.
        test_fraction: Share of all rows, from 0 to 1; 0 gives an empty test part.
        rng: Determines the split.
        strata: (rows,) integers, such as class labels. Each part then has its share of every
            stratum, up to one row (up to two in the validation part).

    Raises:
        MetalossError: If the training part, or a part with a fraction above 0, is empty.

    Example:
        >>> split = split_rows(100, 0.15, 0.25, np.random.default_rng(0))
        >>> [len(part) for part in split]
        [60, 15, 25]
        >>> sorted(np.concatenate(split)) == list(range(100))
        True
    """
    sizes = {"test": round(test_fraction * rows), "valid": round(valid_fraction * rows)}
    train_size = rows - sum(sizes.values())
    empty = ["train"] if train_size < 1 else []
    wanted = {"valid": valid_fraction, "test": test_fraction}
    empty += [name for name, fraction in wanted.items() if fraction > 0 and sizes[name] < 1]
    if empty:
        raise MetalossError(
            f"{rows} rows, valid_fraction={valid_fraction}, test_fraction={test_fraction}: "
            f"no rows left for {' and '.join(empty)}"
        )
    everything = np.arange(rows)
    test = choose(everything, sizes["test"], rng, strata=strata)
    rest = np.setdiff1d(everything, test)
    valid = choose(rest, sizes["valid"], rng, strata=None if strata is None else strata[rest])
    return Split(train=np.setdiff1d(rest, valid), valid=valid, test=test)


def split_rest(
    rows: int,
    given: Mapping[str, np.ndarray],
    fractions: Sequence[float],
    rng: np.random.Generator,
    *,
    strata: np.ndarray | None = None,
) -> Split:
    """Split the rows that are in no given part; see :func:`split_rows`.

    Args:
        rows: The number of rows.
        given: Row numbers of the validation part, the test part, or both.
        fractions: Shares of the other rows for the validation part and the test part; ignored for
            a part that is given.
        rng: Determines the split.
        strata: See :func:`split_rows`.

    Example:
        >>> given = {"valid": np.arange(8, 10)}
        >>> split = split_rest(10, given, (0.5, 0.25), np.random.default_rng(0))
        >>> [len(part) for part in split]
        [6, 2, 2]
    """
    rest = np.setdiff1d(np.arange(rows), np.concatenate([np.arange(0), *given.values()]))
    valid, test = (
        0.0 if part in given else share
        for part, share in zip(("valid", "test"), fractions, strict=True)
    )
    kept = None if strata is None else strata[rest]
    split = split_rows(len(rest), valid, test, rng, strata=kept)
    parts = {part: rest[chosen] for part, chosen in split._asdict().items()}
    return Split(**{**parts, **given})


def part_of(
    rows: np.ndarray,
    parts: int,
    number: int,
    rng: np.random.Generator,
    *,
    strata: np.ndarray | None = None,
) -> np.ndarray:
    """Return one of ``parts`` disjoint parts of the rows, sorted, with its share of each stratum.

    Args:
        rows: (n,) distinct row numbers.
        parts: From 1 to n. The sizes of the parts differ by one row at most.
        number: Which part, from 0.
        rng: Determines the parts, the same for every ``number``.
        strata: (n,) integers, one for each of the given rows.

    Example:
        >>> rows = np.arange(10)
        >>> found = [part_of(rows, 3, k, np.random.default_rng(0)) for k in range(3)]
        >>> [len(part) for part in found], sorted(np.concatenate(found)) == list(range(10))
        ([4, 3, 3], True)
    """
    assert 0 <= number < parts <= len(rows)
    return np.sort(rows[_shuffled(len(rows), rng, strata)[number::parts]])


def choose(
    rows: np.ndarray, count: int, rng: np.random.Generator, *, strata: np.ndarray | None = None
) -> np.ndarray:
    """Return ``count`` of the rows, sorted, with the share of each stratum, up to one row.

    This is systematic sampling: rows are shuffled within their strata, strata are concatenated, and
    rows are picked at even distances. Integer arithmetic makes the total exact.

    Args:
        rows: (n,) distinct row numbers.
        count: From 0 to n.
        rng: Determines the draw.
        strata: (n,) integers, one for each of the given rows.

    Example:
        >>> picked = choose(np.arange(12), 4, np.random.default_rng(0), strata=np.arange(12) % 2)
        >>> np.bincount(picked % 2).tolist()
        [2, 2]
    """
    assert 0 <= count <= len(rows)
    if count == 0:
        return rows[:0]
    shuffled = _shuffled(len(rows), rng, strata)
    marks = np.arange(len(rows) + 1) * count // len(rows)
    return np.sort(rows[shuffled[np.diff(marks) == 1]])


def _shuffled(count: int, rng: np.random.Generator, strata: np.ndarray | None) -> np.ndarray:
    """Return the positions from 0 in random order, one stratum after the other."""
    shuffled = rng.permutation(count)
    if strata is None:
        return shuffled
    return shuffled[np.argsort(strata[shuffled], kind="stable")]
