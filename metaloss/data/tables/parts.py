"""The rows of a table from one file, and from further files with trusted and test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from metaloss.data.files import warn
from metaloss.data.tables.cells import MISSING
from metaloss.data.tables.reader import read_csv
from metaloss.data.tables.target import Target, read_same_target
from metaloss.data.tables.text_table import ColumnForm, TextTable
from metaloss.data.targets.shared_classes import check_shared_classes
from metaloss.errors import MetalossError, unknown_name

_YES = {"1", "1.0", "true", "yes", "y", "t", "x"}
_NO = {"0", "0.0", "false", "no", "n", "f", *MISSING}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The concatenated rows of one or more files.

    Attributes:
        inputs: The input columns.
        forms: The types of the input columns and of the target.
        target: The targets.
        given: Row numbers of splits that have a file of their own or are marked in a column.
    """

    inputs: pd.DataFrame
    forms: Mapping[str, ColumnForm]
    target: Target
    given: Mapping[str, np.ndarray]


def joined_rows(
    text: TextTable, target: Target, columns: Sequence[str], files: Mapping[str, str]
) -> Rows:
    """Return the rows of the first file, followed by those of the others.

    The first file determines the types of the columns and of the target. ``columns`` begins with
    the name of the target; ``files`` are the paths of the others by split, ``valid`` or ``test``.

    Raises:
        MetalossError: If a file has not all columns, or no class of the first one.
    """
    name, *names = columns
    forms = text.forms(names)
    form = text.forms([name])[name] if target.numeric else ColumnForm(kind="text")
    tables, found = [text.columns(names, forms).iloc[target.rows]], [target]
    for path in files.values():
        other = read_csv(path, text.form)
        _check_columns(other, text, columns)
        found.append(read_same_target(other, name, found[-1], form))
        tables.append(other.columns(names, forms).iloc[found[-1].rows])
        _say_repeated(path, text, tables[-1], tables[0])
    paths = [str(text.path), *files.values()]
    if found[-1].classes is not None:
        check_shared_classes(paths, [one.values for one in found], found[-1].classes)
    ends = np.cumsum([len(one.rows) for one in found])
    return Rows(
        inputs=pd.concat(tables, ignore_index=True),
        forms={**forms, name: form},
        target=Target(
            rows=np.arange(ends[-1]),
            values=np.concatenate([one.values for one in found]),
            classes=found[-1].classes,
            numeric=target.numeric,
        ),
        given={
            part: np.arange(first, last)
            for part, first, last in zip(files, ends[:-1], ends[1:], strict=True)
        },
    )


def marked_rows(text: TextTable, name: str) -> np.ndarray:
    """Return a mask of the rows that a column of yes and no marks.

    Raises:
        MetalossError: If there is no such column, a cell is neither yes nor no, or all cells are
            the same.
    """
    if name not in text.names:
        raise unknown_name(f"column of {text.path}", name, [one for one in text.names if one])
    cells = text.column(name)
    for cell, line in zip(cells, text.lines, strict=True):
        if cell.lower() not in _YES | _NO:
            raise MetalossError(
                f"{text.path}: column {name!r} is {cell[:40]!r} in line {line}; expected yes, "
                "true, 1 or x for a trusted row, and no, false, 0 or nothing for others"
            )
    marked = np.array([cell.lower() in _YES for cell in cells])
    if marked.all() or not marked.any():
        which = "every" if marked.all() else "no"
        raise MetalossError(f"{text.path}: column {name!r} marks {which} row; expected some rows")
    return marked


def _check_columns(other: TextTable, first: TextTable, columns: Sequence[str]) -> None:
    lacking = [name for name in columns if name not in other.names]
    if lacking:
        drop = f" (or task.drop=[{','.join(lacking)}])"
        raise MetalossError(
            f"{other.path}: no column {', '.join(lacking)}; expected the columns of {first.path}"
            f"{drop if columns[0] not in lacking else ', with the target'}"
        )
    unknown = [name for name in other.names if name and name not in first.names]
    if unknown:
        warn(f"{other.path}: left out, because not in {first.path}: {', '.join(unknown)}")


def _say_repeated(path: str, first: TextTable, rows: pd.DataFrame, train: pd.DataFrame) -> None:
    known = pd.util.hash_pandas_object(train, index=False)
    again = pd.util.hash_pandas_object(rows, index=False).isin(known).sum()
    if again:
        warn(f"{path}: {again} of {len(rows)} rows have the same inputs as a row of {first.path}")
