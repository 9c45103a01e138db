"""Reads a CSV file as columns of text, with line numbers in errors.

This uses the parser of the standard library. The one of pandas fills short rows silently and does
not tell the line of a row.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from metaloss.data.tables.cells import Decimal, Thousands, number_readings
from metaloss.data.tables.form import CSVForm
from metaloss.data.tables.text_table import TextTable
from metaloss.errors import MetalossError

_SEPARATORS = (",", ";", "\t", "|")
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_csv(path: str | Path, form: CSVForm | None = None, *, header: bool = True) -> TextTable:
    """Return the cells of a CSV file, which may be compressed by gzip.

    The separator is the one of ``, ; tab |`` that gives the first line the most cells. Blank lines
    are skipped. Line ends may be those of Linux, Windows or old Macintosh.

    Args:
        path: The file.
        form: The format options.
        header: Whether the first line has the names of the columns. Otherwise their names are
            numbers from 1.

    Raises:
        MetalossError: If the file is missing, has another encoding, no header or no rows, or if a
            line has more or fewer cells than the header.
    """
    path, form = Path(path).expanduser(), form or CSVForm()
    text = _text(path, form.encoding).replace("\r\n", "\n").replace("\r", "\n")
    if form.comment:
        # Text in quotes matches first, and is kept.
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
            # The first line of a row.
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
        # An unclosed quote would read all further lines as one cell.
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
        raise MetalossError(
            f"{path}: no rows; expected a line of names, then one line for each row"
        )
    cells = pd.DataFrame(rows, columns=names, dtype=object)
    return TextTable(path=path, cells=cells, lines=lines, separator=separator, form=form)


def _text(path: Path, encoding: str) -> str:
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise MetalossError(f"{path}: {reason}; expected a CSV file") from error
    marked = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    try:
        # Without the byte order mark that spreadsheets write.
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
            f"{path}: got zero bytes, which no CSV file has; expected task.encoding=NAME, such as "
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
            raise MetalossError(f"{path}: two columns are named {name!r}; expected different names")
        return
    raise MetalossError(
        f"{path}: the first line has only numbers, {', '.join(names[:4])}; expected the names of "
        "the columns"
    )
