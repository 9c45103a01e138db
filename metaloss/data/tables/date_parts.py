"""Dates as numbers: the day, and its year, month, day of the month, day of the week and hour."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from metaloss.data.tables.text_table import ColumnForm

# Each part, and its name in pandas.
_PARTS = {
    "year": "year",
    "month": "month",
    "day": "day",
    "weekday": "day_of_week",
    "hour": "hour",
}


def part_names(name: str) -> list[str]:
    """Return the names of the columns that are made of a column of dates."""
    return [f"{name} ({part})" for part in _PARTS]


def with_date_parts(rows: pd.DataFrame, forms: Mapping[str, ColumnForm]) -> pd.DataFrame:
    """Return a table with further columns after each column of dates, as days since 1970-01-01.

    Returns:
        The columns of ``rows``. After a column ``joined`` of dates: ``joined (year)``, ``joined
        (month)`` 1 to 12, ``joined (day)`` 1 to 31, ``joined (weekday)`` 0 to 6 from Monday, and
        ``joined (hour)`` 0 to 23. A missing date has missing parts.

    Example:
        >>> rows = pd.DataFrame({"joined": [1.5, np.nan]})
        >>> with_date_parts(rows, {"joined": ColumnForm(kind="dates")}).iloc[0].tolist()
        [1.5, 1970.0, 1.0, 2.0, 4.0, 12.0]
    """
    columns = {}
    for name in rows:
        columns[name] = rows[name]
        if name in forms and forms[name].kind == "dates":
            new = zip(part_names(name), _parts(rows[name].to_numpy()), strict=True)
            # A table may have a column of that name already.
            columns |= {key: values for key, values in new if key not in rows}
    typed = {name: pd.Series(values, index=rows.index) for name, values in columns.items()}
    return pd.DataFrame(typed, index=rows.index)


def _parts(days: np.ndarray) -> list[np.ndarray]:
    known = np.isfinite(days)
    seconds = np.round(np.where(known, days, 0.0) * 86400).astype("int64")
    moments = pd.Series(seconds.astype("datetime64[s]")).dt
    return [
        np.where(known, getattr(moments, part).to_numpy(dtype=np.float64), np.nan)
        for part in _PARTS.values()
    ]
