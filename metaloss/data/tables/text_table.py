"""A table of text, and what its columns mean: numbers, dates or text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from metaloss.data.files import warn
from metaloss.data.tables.cells import (
    Reading,
    choose_reading,
    dates,
    known,
    look_like_dates,
    number_readings,
)
from metaloss.data.tables.form import CSVForm


@dataclass(frozen=True, kw_only=True)
class ColumnForm:
    """How a column of one file is to be read in another.

    Attributes:
        kind: numbers, dates or text.
        decimal: The decimal sign, where cells leave it open.
    """

    kind: str
    decimal: str = "."


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """Cells as they stand in the file, without spaces around them.

    Attributes:
        path: The file.
        cells: Text, a column for each name of the header.
        lines: The line of each row in the file, from 1.
        separator: What stands between cells.
        form: What is known of the cells beforehand.
    """

    path: Path
    cells: pd.DataFrame
    lines: list[int]
    separator: str
    form: CSVForm

    @property
    def names(self) -> list[str]:
        """One for each column, from the header; empty for columns without a name."""
        return self.cells.columns.tolist()

    def column(self, name: str) -> list[str]:
        """Return the cells of a column."""
        return self.cells[name].tolist()

    @cached_property
    def _readings(self) -> dict[str, list[Reading]]:
        """What the cells of each column may mean as numbers; nothing for columns of text."""
        return {
            name: number_readings(self.cells[name], self.form.decimal, self.form.thousands)
            for name in self.names
            if name
        }

    @cached_property
    def _certain(self) -> set[str]:
        """The decimal signs of those columns that leave nothing open."""
        readings = self._readings.values()
        return {one[0].decimal for one in readings if len(one) == 1 and one[0].marked}

    def numbers(
        self, name: str, *, strict: bool = True, form: ColumnForm | None = None
    ) -> np.ndarray | None:
        """Return a column as float64, NaN where no finite number is; None for one of text.

        Args:
            name: The column's.
            strict: Raise where the cells may mean different numbers; otherwise such a column is
                one of text.
            form: Of a column that holds numbers whatever most of its cells are. Without one,
                a column holds numbers if most of its known cells do.

        Raises:
            MetalossError: If its cells may mean different numbers.
        """
        reading = self._reading(name, strict, form)
        return None if reading is None else reading.values

    def _reading(self, name: str, strict: bool, form: ColumnForm | None = None) -> Reading | None:
        found, certain = self._readings[name], self._certain
        if form is not None:
            cells, of = self.cells[name], self.form
            found = found or number_readings(cells, of.decimal, of.thousands, least=0)
            certain = certain or {form.decimal}
        if not found or (len(found) > 1 and not strict):
            return None
        where = f"{self.path}: column {name!r}"
        return choose_reading(found, self.cells[name], certain, self.separator, where)

    def forms(self, names: Iterable[str]) -> dict[str, ColumnForm]:
        """Return what most known cells of each column are.

        Raises:
            MetalossError: If cells may mean different numbers.
        """
        found = {}
        for name in names:
            reading = self._reading(name, strict=True)
            if reading is not None:
                found[name] = ColumnForm(kind="numbers", decimal=reading.decimal)
            elif dates(self.cells[name], self.form.dates) is not None:
                found[name] = ColumnForm(kind="dates")
            else:
                found[name] = ColumnForm(kind="text")
                self._say_text(name)
        return found

    def columns(
        self, names: Iterable[str], forms: Mapping[str, ColumnForm] | None = None
    ) -> pd.DataFrame:
        """Return columns of numbers, of dates as days since 1970, or of text.

        Args:
            names: The columns.
            forms: What they hold; default: what :meth:`forms` finds. Cells that hold something
                else are missing: a warning says so.
        """
        names = list(names)
        forms = self.forms(names) if forms is None else forms
        made: dict[str, np.ndarray] = {}
        for name in names:
            kind = forms[name].kind
            if kind == "text":
                made[name] = self.cells[name].to_numpy(dtype=object)
                continue
            values = (
                self.numbers(name, form=forms[name])
                if kind == "numbers"
                else dates(self.cells[name], self.form.dates, least=0)
            )
            made[name] = np.full(len(self.lines), np.nan) if values is None else values
            self._say_lost(name, made[name], kind)
        return frame(made)

    def _say_lost(self, name: str, values: np.ndarray, kind: str) -> None:
        lost = np.flatnonzero(np.isnan(values) & known(self.cells[name]).to_numpy())
        if len(lost):
            warn(
                f"{self.path}: column {name!r} holds {kind}; {len(lost)} of "
                f"{len(values)} cells are none and count as missing, such as "
                f"{self.column(name)[lost[0]][:40]!r} in line {self.lines[lost[0]]}"
            )

    def _say_text(self, name: str) -> None:
        if look_like_dates(self.cells[name]):
            warn(
                f"{self.path}: column {name!r} looks like dates and is taken as text; "
                "task.dates=FORMAT, such as %d.%m.%Y or %m/%d/%Y, makes numbers of them"
            )


def frame(columns: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Return columns of float64 and of text (object) as a table."""
    # Without a type of its own, text would become one of pandas'.
    typed = {name: pd.Series(values, dtype=values.dtype) for name, values in columns.items()}
    return pd.DataFrame(typed)
