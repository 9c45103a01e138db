"""Columns of numbers and of text, and how they become inputs for a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor

from metaloss.data.files import warn
from metaloss.data.scaling import fit_scaling
from metaloss.errors import MetalossError

Encoder = Callable[["Columns"], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Named columns of n rows: float64 with NaN for what is missing, or object arrays of text."""

    values: Mapping[str, np.ndarray]

    def __getitem__(self, rows: np.ndarray) -> Columns:
        """Return some of the rows."""
        return Columns(values={name: column[rows] for name, column in self.values.items()})

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(next(iter(self.values.values()), ()))


def fit_columns(train: Columns, *, most: int = 50) -> Encoder:
    """Return what makes a row of numbers out of every row: ``Columns -> (n, D)``.

    Fitted on training rows alone. A number is standardised; where it is missing, the median takes
    its place, and if it is missing anywhere in the training rows, a further column says where. A
    text becomes one column for each text that the training rows have, 1 where it is that one; one
    that is not among them is 0 everywhere. What tells no rows apart is left out: a column that
    never changes, and a text that is another one in every row (a name, an identifier). A warning
    says so.

    Args:
        train: The training rows.
        most: So many texts of a column at most, the most frequent ones.

    Raises:
        MetalossError: If no column is left.

    Example:
        >>> ages, towns = np.array([1.0, np.nan, 3.0]), np.array(["Rome", "Oslo", "Rome"], object)
        >>> encode = fit_columns(Columns(values={"age": ages, "town": towns}))
        >>> encode(Columns(values={"age": np.array([2.0]), "town": np.array(["Rome"], object)}))
        array([[0., 0., 0., 1.]])
    """
    encoders = {}
    for name, column in train.values.items():
        fit = _numbers if column.dtype != object else partial(_texts, name=name, most=most)
        encoder = fit(column)
        if encoder is not None:
            encoders[name] = encoder
    left_out = [name for name in train.values if name not in encoders]
    if encoders and left_out:
        warn(
            f"left out, as each is constant, empty, or a text that differs in every training row: "
            f"{', '.join(left_out)}"
        )
    if not encoders:
        raise MetalossError(
            f"no column to learn from: of {', '.join(train.values)} each is constant, empty, or a "
            "text that differs in every training row"
        )

    def encode(columns: Columns) -> np.ndarray:
        parts = [encoder(columns.values[name]) for name, encoder in encoders.items()]
        return np.concatenate(parts, axis=1)

    return encode


def check_differ(title: str, inputs: Tensor) -> None:
    """Raise if all inputs (n, D) of several rows are the same in each of them."""
    if len(inputs) > 1 and bool((inputs == inputs[0]).all()):
        raise MetalossError(
            f"task={title}: every input is the same in all {len(inputs)} test rows; expected "
            "inputs that tell rows apart (are numbers taken for texts?)"
        )


def _numbers(train: np.ndarray) -> Callable[[np.ndarray], np.ndarray] | None:
    known = train[~np.isnan(train)]
    if len(known) == 0:
        return None
    median = np.median(known)
    gaps = len(known) < len(train)
    filled = np.where(np.isnan(train), median, train)
    changes = bool((filled != filled[0]).any())
    if not changes and not gaps:
        return None
    scale = fit_scaling(filled, per_feature=True)

    def encode(column: np.ndarray) -> np.ndarray:
        missing = np.isnan(column)
        parts = [scale(np.where(missing, median, column))] if changes else []
        return np.stack([*parts, *([missing.astype(np.float64)] if gaps else [])], axis=1)

    return encode


def _texts(train: np.ndarray, *, name: str, most: int) -> Callable[[np.ndarray], np.ndarray] | None:
    counts = Counter(train.tolist())
    if len(counts) == 1 or len(counts) == len(train):
        return None
    # The most frequent ones; among equals the first by alphabet.
    kept = sorted(sorted(counts), key=lambda text: -counts[text])[:most]
    if len(counts) > most:
        rows = sum(counts[text] for text in counts.keys() - set(kept))
        warn(
            f"column {name!r} holds {len(counts)} different texts: an input for each of the {most} "
            f"most frequent ones, none for the others, which stand in {rows} of {len(train)} "
            "training rows"
        )
    texts = np.array(sorted(kept), dtype=object)
    return lambda column: (column[:, None] == texts).astype(np.float64)
