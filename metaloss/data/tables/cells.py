"""Finds out whether the cells of a column are numbers, dates or text, by most of them."""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from enum import Enum

import numpy as np
import pandas as pd

from metaloss.data.files import warn
from metaloss.errors import MetalossError

# Texts for missing numbers, in lower case.
MISSING = {"", "?", "na", "#na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none", "."}
MISSING |= {"n.a.", "<null>", "\\n", "#value!", "#div/0!", "#ref!"}

# Typographic signs, and those of a keyboard.
_PLAIN = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u2019": "'", "\u2212": "-"})
# Sums of larger numbers overflow.
_LARGEST = 1e300
_FIRST = 100
_UNITS = "%$€£¥"
_ISO = r"[0-9]{4}-[0-9]{2}(-[0-9]{2}([T ][0-9:.,]+)?\s*(Z|[+-][0-9:]+)?)?"
_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_LIKE_DATES = (
    r"(?i)[0-9]{1,4}([./-])[0-9]{1,2}\1[0-9]{1,4}(\D.*)?"
    rf"|[0-9]{{1,2}}[\s.-]+{_MONTH}[\s.,-]+[0-9]{{2,4}}.*|{_MONTH}[\s.,-]+[0-9]{{1,4}}.*"
)


class Decimal(Enum):
    """The decimal sign."""

    auto = "auto"
    point = "point"
    comma = "comma"


class Thousands(Enum):
    """The separator of thousands."""

    auto = "auto"
    none = "none"
    comma = "comma"
    point = "point"
    space = "space"
    apostrophe = "apostrophe"


_SIGNS = {"point": ".", "comma": ",", "space": " ", "apostrophe": "'", "none": ""}
# (decimal, thousands). If two give the same numbers, the first one is used.
_FORMS = [
    (".", ""),
    (",", ""),
    (".", ","),
    (",", "."),
    (".", " "),
    (",", " "),
    (".", "'"),
    (",", "'"),
]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A column as numbers.

    Attributes:
        values: (n,) float64, NaN for cells that are not finite numbers.
        decimal: The decimal sign.
        thousands: The separator of thousands; empty: none.
        marked: Whether there are points or commas in the numbers.
    """

    values: np.ndarray
    decimal: str
    thousands: str
    marked: bool


def known(cells: pd.Series) -> pd.Series:
    """Return a mask of the cells that are not missing."""
    return ~cells.str.lower().isin(MISSING)


def number_readings(
    cells: pd.Series, decimal: Decimal, thousands: Thousands, *, least: float = 0.5
) -> list[Reading]:
    """Return the possible readings of a text column as numbers; several if it is ambiguous.

    The result is empty unless more than the share ``least`` of the known cells are numbers. All
    numbers may have the same percent or currency sign. Otherwise numbers have only digits from 0 to
    9, signs and an exponent; underscores and words, which Python's ``float`` accepts, are not
    allowed.

    Example:
        >>> cells = pd.Series(["1.234,5", "7"])
        >>> number_readings(cells, Decimal.auto, Thousands.auto)[0].values.tolist()
        [1234.5, 7.0]
        >>> both = number_readings(pd.Series(["12,345"]), Decimal.auto, Thousands.auto)
        >>> [reading.values.tolist() for reading in both]
        [[12.345], [12345.0]]
    """
    filled = known(cells)
    plain = _without_unit(_typed(cells.where(filled, "")), filled)
    marks = set("".join(plain)) & set(".,' ")
    allowed = [
        (point, group)
        for point, group in _FORMS
        if decimal is Decimal.auto or point == _SIGNS[decimal.value]
        if thousands is Thousands.auto or group in ("", _SIGNS[thousands.value])
        if thousands is Thousands.auto or point != _SIGNS[thousands.value]
    ]
    # Signs that do not occur make no difference, so that these forms are left out.
    differ = [
        (point, group)
        for point, group in allowed
        if (not group or group in marks) and (point == "." or marks & {",", group})
    ]
    found: list[Reading] = []
    least *= filled.sum()
    most = least
    for point, group in differ or allowed[:1]:
        # If a form fits all cells, another one must fit the first cells to be considered.
        if most == filled.sum() and _fitting(plain.head(_FIRST), point, group).sum() < min(
            _FIRST, filled.head(_FIRST).sum()
        ):
            continue
        values = _parsed(plain, point, group)
        count = np.isfinite(values).sum()
        if count > most:
            found, most = [], count
        alike = [np.array_equal(values, other.values, equal_nan=True) for other in found]
        if count == most and not any(alike) and (found or count > least):
            read = plain[np.isfinite(values)]
            marked = bool(marks & {".", ","}) and any("." in cell or "," in cell for cell in read)
            found.append(Reading(values=values, decimal=point, thousands=group, marked=marked))
    if not filled.any():
        nothing = np.full(len(cells), np.nan)
        found = [Reading(values=nothing, decimal=".", thousands="", marked=False)]
    return found


def _typed(cells: pd.Series) -> pd.Series:
    """Return the cells with the signs of a keyboard."""
    if not set("".join(cells)) & {chr(sign) for sign in _PLAIN}:
        return cells
    return cells.str.translate(_PLAIN)


def _without_unit(cells: pd.Series, filled: pd.Series) -> pd.Series:
    """Return the cells without their common unit; cells with another unit become empty."""
    if not set("".join(cells)) & set(_UNITS):
        return cells
    units = cells.str.replace(f"[^{_UNITS}]", "", regex=True)
    unit = units[filled].mode().iloc[0]
    if not unit:
        return cells
    ends = rf"^([+-]?)\s*{re.escape(unit)}\s*|\s*{re.escape(unit)}$"
    return cells.where(units == unit, "").str.replace(ends, r"\1", regex=True)


def _fitting(cells: pd.Series, decimal: str, thousands: str) -> np.ndarray:
    """Return a mask of the cells that are numbers with these signs."""
    point, group = re.escape(decimal), re.escape(thousands)
    whole = rf"(?:[0-9]+|[1-9][0-9]{{0,2}}(?:{group}[0-9]{{3}})+)" if thousands else "[0-9]+"
    pattern = rf"[+-]?\s?(?:{whole}(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?"
    return cells.str.fullmatch(pattern).to_numpy(dtype=bool)


def _parsed(cells: pd.Series, decimal: str, thousands: str) -> np.ndarray:
    fits = _fitting(cells, decimal, thousands)
    bare = cells[fits].tolist()
    for sign, plain in ((" ", ""), (thousands, ""), (decimal, ".")):
        if sign not in ("", plain):
            bare = [cell.replace(sign, plain) for cell in bare]
    values = np.full(len(cells), np.nan)
    # float() rounds correctly; the parser of pandas may be wrong in the last bit.
    values[fits] = [float(cell) for cell in bare]
    return np.where(np.abs(values) < _LARGEST, values, np.nan)


def choose_reading(
    readings: list[Reading], cells: pd.Series, certain: Set[str], separator: str, where: str
) -> Reading:
    """Return the reading of a column; if it is ambiguous, the other columns decide.

    Args:
        readings: The possible readings, at least one.
        cells: The text of the column.
        certain: The decimal signs of the table's unambiguous columns.
        separator: The separator of cells.
        where: The file and the column, for messages.

    Raises:
        MetalossError: If the column stays ambiguous.
    """
    fitting = [reading for reading in readings if {reading.decimal} == set(certain)]
    first = readings[0]
    if len(readings) == 1 or (not certain and first.decimal == "." and separator != ";"):
        return first
    if len(fitting) == 1:
        return fitting[0]
    row = int(np.flatnonzero(~np.isclose(first.values, readings[1].values, equal_nan=True))[0])
    one, other = first.values[row], readings[1].values[row]
    message = (
        f"{where}: {cells.iloc[row]!r} may be {one:.15g} or {other:.15g}; expected "
        "task.decimal=point or task.decimal=comma"
    )
    # A file with semicolons probably uses the comma as decimal sign.
    if not certain and separator == ";":
        warn(f"{message}; read as {one:.15g}")
        return first
    raise MetalossError(message)


def dates(cells: pd.Series, form: str, *, least: float = 0.5) -> np.ndarray | None:
    """Return a column as days since 1970-01-01; None if it has too few dates.

    Args:
        cells: Text.
        form: A format for ``strptime``, or empty. ISO 8601 with year, month and day is always read.
        least: More than this share of the known cells must be dates.

    Example:
        >>> dates(pd.Series(["1970-01-02", "1970-01-03 12:00"]), "").tolist()
        [1.0, 2.5]
    """
    filled = known(cells)
    iso = cells.str.fullmatch(_ISO).astype(bool)
    for name, fits in ((form, filled), ("ISO8601", iso)):
        if not name or fits.sum() <= least * filled.sum():
            continue
        try:
            found = pd.to_datetime(cells.where(fits), format=name, errors="coerce", utc=True)
        except ValueError as error:
            raise MetalossError(f"task.dates={form}: {error}; expected such as %d.%m.%Y") from error
        # numpy's days have a larger range than nanoseconds.
        moments = found.dt.tz_localize(None).to_numpy()
        values = (moments - np.datetime64(0, "D")) / np.timedelta64(1, "D")
        if np.isfinite(values).sum() > least * filled.sum():
            return values
    return None


def look_like_dates(cells: pd.Series) -> bool:
    """Return whether most cells of a text column look like dates."""
    return bool(cells.str.fullmatch(_LIKE_DATES).sum() > known(cells).sum() / 2)
