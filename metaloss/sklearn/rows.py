"""Training and trusted rows of an estimator: held out, weighted, encoded."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from metaloss.data.inputs import Inputs, ScaledInputs
from metaloss.data.scaling import fit_scaling
from metaloss.data.splits import choose
from metaloss.data.tables.form import CSVForm
from metaloss.data.tables.table_inputs import TableInputs
from metaloss.errors import MetalossError

# Weights that are not whole numbers become repetitions: at most this many of a row on average.
_MOST_REPEATED = 10


class Rows(NamedTuple):
    """Rows of a table or an array, their targets and how often each occurs.

    Attributes:
        inputs: n rows, an array (n, D) in float64 or a DataFrame.
        targets: Class indices (n,) or values (n,).
        counts: (n,) whole numbers.
        numbers: (n,) the number of each row, as in ``places`` of `counted`.
    """

    inputs: Any
    targets: np.ndarray
    counts: np.ndarray
    numbers: np.ndarray

    def picked(self, rows: np.ndarray) -> Rows:
        """Return some rows."""
        inputs = getattr(self.inputs, "iloc", self.inputs)[rows]
        return Rows(inputs, self.targets[rows], self.counts[rows], self.numbers[rows])

    def repeated(self) -> Rows:
        """Return each row as often as it occurs."""
        return self.picked(np.repeat(np.arange(len(self.counts)), self.counts))


def is_table(rows: Any) -> bool:
    """Return whether rows are a DataFrame with texts, dates or missing cells."""
    if not isinstance(rows, pd.DataFrame):
        return False
    numeric = [pd.api.types.is_numeric_dtype(one) for one in rows.dtypes]
    return not all(numeric) or bool(rows.isna().any(axis=None))


def dense(rows: Any) -> np.ndarray:
    """Return an array, which may be sparse, as (n, D) in float64."""
    return np.asarray(rows.toarray() if sparse.issparse(rows) else rows, dtype=np.float64)


def counted(
    inputs: Any, targets: np.ndarray, weights: np.ndarray | None
) -> tuple[Rows, np.ndarray]:
    """Return rows with their weights as counts, and ``places``: which of them each row became.

    Equal rows of an array become one. Whole weights are counts. Others are rounded to counts,
    larger ones more exactly. The rows do not depend on the order of the rows of an array.

    Example:
        >>> rows, places = counted(np.array([[2.0], [1.0], [2.0]]), np.array([0, 1, 0]), None)
        >>> rows.inputs.tolist(), rows.targets.tolist(), rows.counts.tolist(), places.tolist()
        ([[1.0], [2.0]], [1, 0], [1, 2], [1, 0, 1])
    """
    weights = np.ones(len(targets)) if weights is None else np.asarray(weights, dtype=np.float64)
    places = np.arange(len(targets))
    if not isinstance(inputs, pd.DataFrame):
        whole = np.column_stack([inputs, targets])
        whole, places = np.unique(whole, axis=0, return_inverse=True)
        places = places.reshape(-1)
        weights = np.bincount(places, weights=weights, minlength=len(whole))
        inputs, targets = whole[:, :-1], whole[:, -1].astype(targets.dtype)
    counts = _counts(weights)
    rows = Rows(inputs, targets, counts, np.arange(len(counts)))
    return rows.picked(np.flatnonzero(counts)), places


def _counts(weights: np.ndarray) -> np.ndarray:
    total, rows = weights.sum(), len(weights)
    if total <= 0:
        raise MetalossError("sample_weight: every weight is 0; expected one > 0")
    most = _MOST_REPEATED * rows
    if (weights == np.floor(weights)).all() and total <= most:
        return weights.astype(np.int64)
    # The smallest weight is one repetition, if that does not take too many rows.
    wanted = min(most, total / weights[weights > 0].min())
    # Differences of rounded sums: the total is exact, and no row is off by one or more.
    ends = np.round(np.cumsum(weights) / total * wanted).astype(np.int64)
    return np.diff(ends, prepend=0)


def held_out(
    rows: Rows, share: float, rng: np.random.Generator, *, stratified: bool
) -> tuple[Rows, Rows]:
    """Return the training rows and the trusted rows, a share in (0, 1) of all, at least one row.

    If ``stratified``, every class has its share.
    """
    count = len(rows.targets)
    if count < 2:
        return rows, rows
    trusted = min(max(round(share * count), 1), count - 1)
    strata = rows.targets if stratified else None
    picked = choose(np.arange(count), trusted, rng, strata=strata)
    return rows.picked(np.setdiff1d(np.arange(count), picked)), rows.picked(picked)


def encoding(train: Any) -> Inputs:
    """Return the encoding of inputs, fitted on training rows."""
    if isinstance(train, pd.DataFrame):
        return TableInputs.of_frame(CSVForm(), train)
    return ScaledInputs(fit_scaling(train, per_feature=True))
