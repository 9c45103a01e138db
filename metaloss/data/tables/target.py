"""The column to predict: classes or numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from metaloss.data.tables.cells import MISSING
from metaloss.data.tables.text_table import ColumnForm, TextTable
from metaloss.errors import MetalossError

# Whole numbers are classes if there are at most this many different ones ...
_MOST_CLASSES = 20
# ... with at least this many rows for each on average.
_ROWS_OF_A_CLASS = 5


class Predict(Enum):
    """The type of a target column; ``auto``: inferred from its values."""

    auto = "auto"
    classes = "classes"
    numbers = "numbers"


@dataclass(frozen=True, kw_only=True)
class Target:
    """The known targets.

    Attributes:
        rows: Numbers of the rows with a target.
        values: Class indices (n,) int64, or numbers (n, 1) float64.
        classes: The text of each class; None for numbers.
        numeric: Whether the column has numbers, which may be classes.
    """

    rows: np.ndarray
    values: np.ndarray
    classes: list[str] | None = None
    numeric: bool = True


def read_target(table: TextTable, name: str, predict: Predict) -> Target:
    """Return the targets of a column, without rows that have none.

    Text gives classes. So do whole numbers with at most 20 different values and five rows for each
    on average. Other numbers give a regression. Classes are sorted, numbers by value. Codes that
    differ as texts but not as numbers, such as 12 and 012, are different classes; 1 and 1.0 are the
    same.

    Raises:
        MetalossError: If the column is empty, has a single value, is text although numbers are
            expected, or has texts of which most occur once.
    """
    where = f"{table.path}: the target {name!r}"
    cells = table.column(name)
    known = [cell.lower() not in MISSING for cell in cells]
    read = table.numbers(name, strict=predict is not Predict.classes)
    numbers = read
    if read is not None and (
        (np.isfinite(read) != known).any() or _codes(cells, read, predict, where)
    ):
        numbers = None
    if numbers is not None:
        rows = np.flatnonzero(known)
        keys = numbers[rows].tolist()
    else:
        # Among texts, "None" and "NA" may be classes.
        rows = np.flatnonzero([cell not in ("", "?") for cell in cells])
        keys = [cells[row] for row in rows]
    if len(set(keys)) < 2:
        got = f"is {_shown(keys[0])} in every row" if keys else "is empty"
        raise MetalossError(f"{where} {got}; expected two values or more")
    if numbers is None:
        _check_texts(table, name, predict, read)
    if predict is Predict.numbers or (
        predict is Predict.auto and numbers is not None and not _look_like_classes(keys)
    ):
        return Target(rows=rows, values=np.array(keys, dtype=np.float64)[:, None])
    ordered = sorted(set(keys))
    places = {key: place for place, key in enumerate(ordered)}
    values = np.array([places[key] for key in keys], dtype=np.int64)
    shown = [_shown(key) for key in ordered]
    return Target(rows=rows, values=values, classes=shown, numeric=numbers is not None)


def read_same_target(table: TextTable, name: str, like: Target, form: ColumnForm) -> Target:
    """Return the targets of another file, read in the same way as those of the first file.

    Classes that are not in the first file come after its own, sorted. ``like`` are the targets of
    the first file, and ``form`` says how their column was read.

    Raises:
        MetalossError: If there are no targets, or if one is not a number although numbers are
            expected.
    """
    cells = table.column(name)
    numbers = table.numbers(name, form=form) if like.numeric else None
    blank = MISSING if like.numeric else {"", "?"}
    rows = np.flatnonzero([cell.lower() not in blank for cell in cells])
    if not len(rows):
        raise MetalossError(f"{table.path}: the target {name!r} is empty; expected values")
    if like.classes is None:
        values = np.full(len(cells), np.nan) if numbers is None else numbers
        lost = rows[np.isnan(values[rows])]
        if len(lost):
            raise MetalossError(
                f"{table.path}: the target {name!r} is {cells[lost[0]]!r} in line "
                f"{table.lines[lost[0]]}; expected a number"
            )
        return replace(like, rows=rows, values=values[rows][:, None])
    keys = [
        cells[row] if numbers is None or np.isnan(numbers[row]) else _shown(float(numbers[row]))
        for row in rows
    ]
    classes = [*like.classes, *sorted(set(keys) - set(like.classes))]
    places = {key: place for place, key in enumerate(classes)}
    labels = np.array([places[key] for key in keys], dtype=np.int64)
    return replace(like, rows=rows, values=labels, classes=classes)


def _check_texts(table: TextTable, name: str, predict: Predict, read: np.ndarray | None) -> None:
    """Raise if a column of texts was expected to have numbers."""
    where = f"{table.path}: the target {name!r}"
    rows = [row for row, cell in enumerate(table.column(name)) if cell.lower() not in MISSING]
    different = len({table.column(name)[row] for row in rows})
    texts = rows if read is None else [row for row in rows if np.isnan(read[row])]
    mostly_numbers = read is not None and texts and different > _MOST_CLASSES
    if predict is Predict.numbers or (predict is Predict.auto and mostly_numbers):
        cell, line = table.column(name)[texts[0]], table.lines[texts[0]]
        raise MetalossError(
            f"{where} is {cell!r} in line {line}; expected a number (or task.predict=classes)"
        )
    if predict is Predict.auto and different > len(rows) / 2:
        raise MetalossError(
            f"{where} has {different} different texts in {len(rows)} rows; expected classes with "
            "several rows (or task.predict=classes)"
        )


def _codes(cells: list[str], numbers: np.ndarray, predict: Predict, where: str) -> bool:
    """Return whether numbers are codes of classes, such as 12 and 012."""
    if predict is Predict.numbers:
        return False
    seen: dict[float, str] = {}
    pairs = set()
    for cell, number in zip(cells, numbers.tolist(), strict=True):
        # Without trailing zeros after the decimal sign: 1.0 is 1.
        bare = re.sub(r"([.,][0-9]*?)0*$", r"\1", cell).rstrip(".,")
        if not np.isnan(number) and seen.setdefault(number, bare) != bare:
            pairs.add((seen[number], bare))
    if not pairs:
        return False
    if predict is Predict.classes or _look_like_classes(numbers[~np.isnan(numbers)].tolist()):
        return True
    for pair in sorted(pairs):
        if any(re.match("0[0-9]", text) for text in pair):
            raise MetalossError(
                f"{where} has {pair[0]!r} and {pair[1]!r}, which may be one number or two codes; "
                "expected task.predict=numbers or task.predict=classes"
            )
    return False


def _shown(key: str | float) -> str:
    return f"{key:.15g}" if isinstance(key, float) else key


def _look_like_classes(values: list[float]) -> bool:
    different = len(set(values))
    most = min(_MOST_CLASSES, max(len(values) // _ROWS_OF_A_CLASS, 2))
    return different <= most and all(value.is_integer() for value in values)
