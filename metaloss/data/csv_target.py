"""The column that a table is to predict: classes or numbers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from metaloss.data.csv_file import MISSING, TextTable
from metaloss.errors import MetalossError

# Whole numbers are classes up to so many different ones ...
_MOST_CLASSES = 20
# ... each of which stands for so many rows on average.
_ROWS_OF_A_CLASS = 5


class Predict(Enum):
    """What a target column holds; ``auto``: found out from its values."""

    auto = "auto"
    classes = "classes"
    numbers = "numbers"


@dataclass(frozen=True, kw_only=True)
class Target:
    """The known targets.

    Attributes:
        rows: Row numbers of the table where the target is known.
        values: Class indices (n,) int64, or numbers (n, 1) float64.
        classes: The text of each class; None for numbers.
    """

    rows: np.ndarray
    values: np.ndarray
    classes: list[str] | None = None


def read_target(table: TextTable, name: str, predict: Predict, path: str) -> Target:
    """Return the targets out of a column; rows without one are left out.

    Text makes classes. So do whole numbers with at most 20 different values and five rows for
    each on average; other numbers are numbers. Classes are sorted, numbers by value.

    Raises:
        MetalossError: If the column is empty, has a single value, is text where numbers are asked
            for, or texts of which most occur once.
    """
    numbers = table.numbers(name, least=1)
    if numbers is not None:
        rows = np.flatnonzero(~np.isnan(numbers))
        keys = numbers[rows].tolist()
    else:
        # Among texts "None" and "NA" may well be classes.
        rows = np.flatnonzero([cell not in ("", "?") for cell in table.column(name)])
        keys = [table.column(name)[row] for row in rows]
    where = f"{path}: the target {name!r}"
    if len(set(keys)) < 2:
        got = f"is {_shown(keys[0])} in every row" if keys else "is empty"
        raise MetalossError(f"{where} {got}; expected two values or more")
    if numbers is None:
        _check_texts(table, name, predict, where)
    if predict is Predict.numbers or (
        predict is Predict.auto and numbers is not None and not _look_like_classes(keys)
    ):
        return Target(rows=rows, values=np.array(keys, dtype=np.float64)[:, None])
    ordered = sorted(set(keys))
    places = {key: place for place, key in enumerate(ordered)}
    values = np.array([places[key] for key in keys], dtype=np.int64)
    return Target(rows=rows, values=values, classes=[_shown(key) for key in ordered])


def _check_texts(table: TextTable, name: str, predict: Predict, where: str) -> None:
    """Raise if a column that holds texts should hold numbers."""
    cells = [cell for cell in table.column(name) if cell.lower() not in MISSING]
    texts = [cell for cell in cells if table.number(cell) is None]
    mostly_numbers = len(texts) < len(cells) / 2 and len(set(cells)) > _MOST_CLASSES
    if predict is Predict.numbers or (predict is Predict.auto and mostly_numbers):
        line = table.lines[table.column(name).index(texts[0])]
        raise MetalossError(
            f"{where} is {texts[0]!r} in line {line}; expected a number (or task.predict=classes)"
        )
    if predict is Predict.auto and len(set(cells)) > len(cells) / 2:
        raise MetalossError(
            f"{where} has {len(set(cells))} different texts in {len(cells)} rows; expected classes "
            "that occur again (task.predict=classes takes them all the same)"
        )


def _shown(key: str | float) -> str:
    return f"{key:g}" if isinstance(key, float) else key


def _look_like_classes(values: list[float]) -> bool:
    different = len(set(values))
    most = min(_MOST_CLASSES, max(len(values) // _ROWS_OF_A_CLASS, 2))
    return different <= most and all(value.is_integer() for value in values)
