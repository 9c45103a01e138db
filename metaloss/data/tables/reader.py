"""A CSV file as columns of text, with errors that name the line.

The standard library's parser is used: pandas' own fills short rows without a word, and does not
say in which line a row stands.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from metaloss.data.checks import Checked
from metaloss.data.files import warn
from metaloss.data.tables.cells import (
    Decimal,
    Reading,
    Thousands,
    choose_reading,
    dates,
    known,
    look_like_dates,
    number_readings,
)
from metaloss.errors import MetalossError

_SEPARATORS = (",", ";", "\t", "|")
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True, kw_only=True)
class CSVForm(Checked):
    """Options for what is written in a file; what is left at its default is found out."""

    decimal: Decimal = field(
        default=Decimal.auto, metadata={"help": "the decimal sign of numbers; auto: by the cells"}
    )
    thousands: Thousands = field(
        default=Thousands.auto,
        metadata={"help": "what groups the digits of numbers; auto: by the cells"},
    )
    dates: str = field(
        default="",
        metadata={"help": "the format of dates, such as %d.%m.%Y; empty: 2024-01-31 alone"},
    )
    comment: str = field(
        default="", metadata={"help": "a sign after which the rest of a line does not count"}
    )
    encoding: str = field(
        default="", metadata={"help": "such as cp1252; empty: UTF-8, or what the file's mark says"}
    )

    def __post_init__(self) -> None:
        """Check what can be checked without the file."""
        super().__post_init__()
        if self.decimal is not Decimal.auto and self.decimal.value == self.thousands.value:
            raise MetalossError(
                f"task.decimal={self.decimal.value} and task.thousands={self.thousands.value}: "
                "expected different signs"
            )
        if self.comment and (len(self.comment) != 1 or self.comment in '",;\t|\r\n '):
            raise MetalossError(f"task.comment={self.comment}: expected one sign, such as #")
        try:
            "".encode(self.encoding or "utf-8")  # a codec of bytes has no str.encode
        except (LookupError, ValueError) as error:
            raise MetalossError(
                f"task.encoding={self.encoding}: expected the name of an encoding, such as cp1252"
            ) from error


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

    def numbers(self, name: str, *, strict: bool = True) -> np.ndarray | None:
        """Return a column as float64, NaN where no finite number is; None for one of text.

        A column holds numbers if most of its known cells do. With ``strict=False`` it is one of
        text where its cells may mean different numbers.

        Raises:
            MetalossError: If its cells may mean different numbers.
        """
        if not self._readings[name] or (len(self._readings[name]) > 1 and not strict):
            return None
        certain = {
            reading[0].decimal
            for reading in self._readings.values()
            if len(reading) == 1 and reading[0].marked
        }
        where = f"{self.path}: column {name!r}"
        return choose_reading(
            self._readings[name], self.cells[name], certain, self.separator, where
        )

    def columns(self, names: Iterable[str]) -> pd.DataFrame:
        """Return columns of numbers, of dates as days since 1970, or of text.

        What most known cells of a column are decides. The others are missing: a warning says so.
        """
        made: dict[str, np.ndarray] = {}
        for name in names:
            values, what = self.numbers(name), "numbers"
            if values is None:
                values, what = dates(self.cells[name], self.form.dates), "dates"
            if values is None:
                self._say_text(name)
                made[name] = self.cells[name].to_numpy(dtype=object)
                continue
            lost = np.flatnonzero(np.isnan(values) & known(self.cells[name]).to_numpy())
            if len(lost):
                warn(
                    f"{self.path}: column {name!r} holds {what}; {len(lost)} of "
                    f"{len(values)} cells are none and count as missing, such as "
                    f"{self.column(name)[lost[0]][:40]!r} in line {self.lines[lost[0]]}"
                )
            made[name] = values
        return frame(made)

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


def read_csv(path: str | Path, form: CSVForm | None = None, *, header: bool = True) -> TextTable:
    """Return the cells of a CSV file, which may be packed by gzip.

    The separator is the one of ``, ; tab |`` that gives the first line the most cells. Blank lines
    are left out. Lines may end as on Linux, Windows or an old Macintosh.

    Args:
        path: The file.
        form: What is known of it.
        header: Whether the first line names the columns; otherwise they are called by numbers,
            from 1.

    Raises:
        MetalossError: If the file is missing, is of another encoding, has no header or no rows, or
            if a line has more or fewer cells than the header.
    """
    path, form = Path(path).expanduser(), form or CSVForm()
    text = _text(path, form.encoding).replace("\r\n", "\n").replace("\r", "\n")
    if form.comment:
        # What is in quotes is found first, and stays.
        pattern = rf'("(?:[^"]|"")*")|{re.escape(form.comment)}[^\n]*'
        text = re.sub(pattern, lambda found: found[1] or "", text)
    number = 0
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        first = next((line for line in io.StringIO(text) if line.strip()), "")
        separator = max(
            _SEPARATORS, key=lambda mark: len(next(csv.reader([first], delimiter=mark)))
        )
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator != "\t"
        )
        for cells in reader:
            # The line on which a row begins.
            begins, number = number + 1, reader.line_num
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if rows and len(cells) != len(rows[0]):
                raise MetalossError(
                    f"{path}, line {begins}: {len(cells)} cells; expected {len(rows[0])}, "
                    "as in the first line"
                )
            rows.append(cells)
            lines.append(begins)
        # A quote that nothing closes would take all lines after it for one cell.
        number = lines[-1] - 1 if lines else 0
        rest = io.StringIO(text).readlines()[number:]
        list(csv.reader(rest, delimiter=separator, strict=True, skipinitialspace=True))
    except csv.Error as error:
        raise MetalossError(f"{path}, line {number + 1}: {error}") from error
    if header and rows:
        names, rows, lines = rows[0], rows[1:], lines[1:]
        _check_header(path, names)
    else:
        names = [str(place + 1) for place in range(len(rows[0]) if rows else 0)]
    if not rows:
        raise MetalossError(f"{path}: no rows; expected a line of names and then one line a row")
    cells = pd.DataFrame(rows, columns=names, dtype=object)
    return TextTable(path=path, cells=cells, lines=lines, separator=separator, form=form)


def _text(path: Path, encoding: str) -> str:
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise MetalossError(f"task.path={path}: {reason}; expected a CSV file") from error
    marked = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    try:
        # A mark at the beginning, which spreadsheets write, is left out.
        text = content.decode(marked or encoding or "utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = len((error.object[: error.start] + b"x").splitlines())
        raise MetalossError(
            f"{path}, line {line}: not {error.encoding.upper()} (byte "
            f"0x{error.object[error.start]:02x}); expected task.encoding=NAME, such as cp1252, or "
            "a table saved as CSV in UTF-8"
        ) from error
    if "\0" in text:
        raise MetalossError(
            f"{path}: holds zero bytes, as no CSV file does; expected task.encoding=NAME, such as "
            "utf-16-le, or a table saved as CSV in UTF-8"
        )
    return text


def _check_header(path: Path, names: list[str]) -> None:
    cells = pd.Series([name for name in names if name], dtype=object)
    readings = number_readings(cells, Decimal.auto, Thousands.auto)
    if not readings or np.isnan(readings[0].values).any():
        twice = sorted({name for name in names if names.count(name) > 1 and name})
        if twice:
            name = twice[0][:40]
            raise MetalossError(f"{path}: two columns are called {name!r}; expected different ones")
        return
    raise MetalossError(
        f"{path}: the first line is {', '.join(names[:4])}, numbers alone; expected a line "
        "with the columns' names"
    )
