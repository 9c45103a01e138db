"""A table of text, and the types of its columns: numbers, dates or text."""

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
    """How a column was read, for other files.

    Attributes:
        kind: numbers, dates or text.
        decimal: The decimal sign, for ambiguous cells.
    """

    kind: str
    decimal: str = "."


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """The cells of a file as text, without spaces around them.

    Attributes:
        path: The file.
        cells: Text, with a column for each name of the header.
        lines: The line of each row in the file, from 1.
        separator: The separator of cells.
        form: The format options.
    """

    path: Path
    cells: pd.DataFrame
    lines: list[int]
    separator: str
    form: CSVForm

    @property
    def names(self) -> list[str]:
        """The names of the columns, from the header; empty for columns without a name."""
        return self.cells.columns.tolist()

    def column(self, name: str) -> list[str]:
        """Return the cells of a column."""
        return self.cells[name].tolist()

    @cached_property
    def _readings(self) -> dict[str, list[Reading]]:
        """The possible readings of each column as numbers; empty for columns of text."""
        return {
            name: number_readings(self.cells[name], self.form.decimal, self.form.thousands)
            for name in self.names
            if name
        }

    @cached_property
    def _certain(self) -> set[str]:
        """The decimal signs of the unambiguous columns."""
        readings = self._readings.values()
        return {one[0].decimal for one in readings if len(one) == 1 and one[0].marked}

    def numbers(
        self, name: str, *, strict: bool = True, form: ColumnForm | None = None
    ) -> np.ndarray | None:
        """Return a column as float64, NaN for cells that are not numbers; None for one of text.

        Args:
            name: The name of the column.
            strict: Whether to raise if the cells are ambiguous; otherwise such a column is text.
            form: For a column that is known to have numbers. Without it, a column has numbers if
                most of its known cells are numbers.

        Raises:
            MetalossError: If the cells are ambiguous.
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
        """Return the type of each column, by most of its known cells.

        Raises:
            MetalossError: If cells are ambiguous.
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
            forms: The types of the columns; None: those of :meth:`forms`. Cells of another type
                count as missing, with a warning.
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
        # With an explicit type, because pandas would convert text to its own type.
        typed = {name: pd.Series(values, dtype=values.dtype) for name, values in made.items()}
        return pd.DataFrame(typed)

    def _say_lost(self, name: str, values: np.ndarray, kind: str) -> None:
        lost = np.flatnonzero(np.isnan(values) & known(self.cells[name]).to_numpy())
        if len(lost):
            warn(
                f"{self.path}: column {name!r} has {kind}; {len(lost)} of {len(values)} cells are "
                "something else and count as missing, such as "
                f"{self.column(name)[lost[0]][:40]!r} in line {self.lines[lost[0]]}"
            )

    def _say_text(self, name: str) -> None:
        if look_like_dates(self.cells[name]):
            warn(
                f"{self.path}: column {name!r} looks like dates but is read as text; give their "
                "format by task.dates=FORMAT, such as %d.%m.%Y or %m/%d/%Y"
            )
