"""A CSV file as columns of text, with errors that name the line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metaloss.data.columns import Columns
from metaloss.errors import MetalossError

_SEPARATORS = (",", ";", "\t", "|")
# The share of numbers that makes a column one of numbers.
_NUMERIC = 0.95
# What stands for nothing among numbers, in lower case.
MISSING = {"", "?", "na", "n/a", "nan", "null", "none"}


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """Cells as they stand in the file, without spaces around them.

    Attributes:
        names: One for each column, from the header.
        rows: The cells of each row, as many as names.
        lines: The line of each row in the file, from 1.
        decimal_comma: Whether ``3,14`` may be a number, since commas separate nothing.
    """

    names: list[str]
    rows: list[list[str]]
    lines: list[int]
    decimal_comma: bool = False

    def column(self, name: str) -> list[str]:
        """Return the cells of a column."""
        place = self.names.index(name)
        return [row[place] for row in self.rows]

    def number(self, cell: str) -> float | None:
        """Return a cell as a number, None if it is none."""
        try:
            return float(cell.replace(",", ".") if self.decimal_comma else cell)
        except ValueError:
            return None

    def numbers(self, name: str, *, least: float) -> np.ndarray | None:
        """Return a column as float64, NaN where no finite number is.

        None if fewer than a share of ``least`` of the cells that hold something are numbers.
        """
        known = [cell for cell in self.column(name) if cell.lower() not in MISSING]
        if sum(self.number(cell) is not None for cell in known) < least * len(known):
            return None
        found = [self.number(cell) for cell in self.column(name)]
        values = np.array([np.nan if value is None else value for value in found], dtype=np.float64)
        return np.where(np.isfinite(values), values, np.nan)

    def columns(self, names: Iterable[str]) -> Columns:
        """Return columns as numbers where nearly all known cells are numbers, else as text.

        A slip of the pen in one cell shall not make texts of a whole column of numbers.
        """
        made = {}
        for name in names:
            numbers = self.numbers(name, least=_NUMERIC)
            made[name] = np.array(self.column(name), object) if numbers is None else numbers
        return Columns(values=made)


def read_csv(path: str | Path, *, header: bool = True) -> TextTable:
    """Return the cells of a CSV file in UTF-8.

    The separator is the one of ``, ; tab |`` that gives the first line the most cells. Blank lines
    are left out.

    Args:
        path: The file.
        header: Whether the first line names the columns; otherwise they are called by numbers,
            from 1.

    Raises:
        MetalossError: If the file is missing, is no UTF-8, has no header or no rows, or if a line
            has more or fewer cells than the header.
    """
    path = Path(path).expanduser()
    text = _text(path)
    first = next((line for line in io.StringIO(text) if line.strip()), "")
    separator = max(_SEPARATORS, key=lambda mark: len(next(csv.reader([first], delimiter=mark))))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    names: list[str] = []
    table = TextTable(names=names, rows=[], lines=[], decimal_comma=separator != ",")
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not names:
                names += cells if header else [str(place + 1) for place in range(len(cells))]
                if header:
                    _check_header(path, table)
                    continue
            if len(cells) != len(names):
                raise MetalossError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells; expected {len(names)}, "
                    "as in the first line"
                )
            table.rows.append(cells)
            table.lines.append(reader.line_num)
    except csv.Error as error:
        raise MetalossError(f"{path}, line {reader.line_num}: {error}") from error
    if not table.rows:
        raise MetalossError(f"{path}: no rows; expected a line of names and then one line a row")
    return table


def _text(path: Path) -> str:
    try:
        # With "-sig" a mark at the beginning, which spreadsheets write, is left out.
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise MetalossError(f"task.path={path}: {reason}; expected a CSV file") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise MetalossError(
            f"{path}, line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x}); save the "
            "table as CSV in UTF-8"
        ) from error


def _check_header(path: Path, table: TextTable) -> None:
    names = table.names
    if all(table.number(name) is not None for name in names if name):
        raise MetalossError(
            f"{path}: the first line is {', '.join(names[:4])}, numbers alone; expected a line "
            "with the columns' names"
        )
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        raise MetalossError(f"{path}: two columns are called {twice[0]!r}; expected different ones")
