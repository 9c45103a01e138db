"""Rows of a table as inputs: read from a file or a DataFrame as the training rows were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from metaloss.data.files import warn
from metaloss.data.inputs import Inputs
from metaloss.data.scaling import as_float32
from metaloss.data.tables.cells import Decimal, Thousands
from metaloss.data.tables.columns import TableEncoder, fit_columns
from metaloss.data.tables.date_parts import part_names, with_date_parts
from metaloss.data.tables.form import CSVForm
from metaloss.data.tables.reader import read_csv
from metaloss.data.tables.target import Target, read_same_target
from metaloss.data.tables.text_table import ColumnForm, TextTable
from metaloss.errors import MetalossError

# The most columns that a description lists.
_SHOWN = 30


@dataclass(frozen=True, kw_only=True)
class TableInputs(Inputs):
    """Columns of numbers, dates and text, encoded: float32.

    Attributes:
        encoder: What was fitted on the training rows.
        forms: What each column holds.
        form: How files are written.
        target: The column with the targets, and what it holds; None: not known.
    """

    encoder: TableEncoder
    forms: Mapping[str, ColumnForm]
    form: CSVForm
    target: tuple[str, ColumnForm] | None = None
    kind = "table"

    @classmethod
    def fitted(
        cls,
        form: CSVForm,
        train: pd.DataFrame,
        forms: Mapping[str, ColumnForm],
        *,
        most: int = 50,
    ) -> Self:
        """Return what is found in the training rows; see `fit_columns`.

        Args:
            form: How files are written; options of a task may inherit it.
            train: The training rows.
            forms: What each column holds; where nothing is said, its type decides.
            most: See `fit_columns`.
        """
        forms = forms or {
            name: ColumnForm(kind="numbers" if train[name].dtype == np.float64 else "text")
            for name in train
        }
        names = [one.name for one in fields(CSVForm)]
        plain = CSVForm(**{name: getattr(form, name) for name in names})
        whole = with_date_parts(train, forms)
        parts = [name for name in whole if name not in train]
        encoder = fit_columns(whole, most=most, parts=parts)
        return cls(encoder=encoder, forms=forms, form=plain)

    @classmethod
    def of_frame(cls, form: CSVForm, train: pd.DataFrame) -> Self:
        """Return what is found in the training rows of the user's DataFrame."""
        text = _text_of(train, form)
        forms = text.forms(text.names)
        return cls.fitted(form, text.columns(text.names, forms), forms)

    @property
    def columns(self) -> list[str]:
        """The columns that are read: those with inputs."""
        return [name for name in self.encoder.columns if name in self.forms]

    def __str__(self) -> str:
        """Return each column with what became of it.

        Example:
            >>> rows = pd.DataFrame({"age": [3.0, np.nan, 5.0], "town": ["a", "b", "a"]})
            >>> str(TableInputs.fitted(CSVForm(), rows, {}))
            'age (numbers, with gaps), town (2 texts)'
        """
        encoder, texts, gaps = self.encoder, self.encoder.texts, self.encoder.gaps
        shown = []
        for name in self.columns:
            what = self.forms[name].kind
            if what == "dates":
                count = sum(one in encoder.columns for one in part_names(name))
                what = f"date: {count + 1} numbers"
            elif name in texts:
                what = f"{len(texts[name])} texts"
            shown.append(f"{name} ({what}{', with gaps' if name in gaps else ''})")
        left_out = [f"{name} ({reason})" for name, reason in encoder.left_out.items()]
        lists = [_some(shown), *([f"left out: {_some(left_out)}"] if left_out else [])]
        return "; ".join(lists)

    def __call__(self, rows: pd.DataFrame) -> np.ndarray:
        """Return (n, D) float32."""
        return as_float32(self.encoder(with_date_parts(rows, self.forms)))

    def read(self, path: Path) -> tuple[pd.DataFrame, dict[str, list]]:
        """Return the columns of a CSV file, and the line of each row."""
        text = read_csv(path, self.form)
        return self._columns(text), {"line": text.lines}

    def labelled(self, path: Path, classes: list[str] | None) -> tuple[pd.DataFrame, np.ndarray]:
        """Return the columns of a CSV file and the targets, without rows that have no target."""
        if self.target is None:
            return super().labelled(path, classes)
        text, (name, form) = read_csv(path, self.form), self.target
        if name not in text.names:
            raise MetalossError(f"{path}: no column {name}; expected the target of the run")
        nothing = np.zeros(0)
        like = Target(rows=nothing, values=nothing, classes=classes, numeric=form.kind == "numbers")
        target = read_same_target(text, name, like, form)
        if len(target.rows) < len(text.lines):
            warn(f"{path}: {len(text.lines) - len(target.rows)} rows without a target left out")
        if target.classes is None:
            return self._columns(text).iloc[target.rows], target.values
        names = np.array(target.classes, dtype=object)[target.values]
        return self._columns(text).iloc[target.rows], names

    def taken(self, rows: Any) -> pd.DataFrame:
        """Return the columns of a DataFrame, or of what pandas makes one of."""
        return self._columns(_text_of(pd.DataFrame(rows), CSVForm(dates=self.form.dates)))

    def _columns(self, text: TextTable) -> pd.DataFrame:
        """Return the columns that give an input; say what was not known of them before."""
        names = self.columns
        lacking = [name for name in names if name not in text.names]
        if lacking:
            raise MetalossError(
                f"{text.path}: no column {', '.join(lacking)}; expected the columns that the run "
                f"learned from: {', '.join(names)}"
            )
        columns = text.columns(names, self.forms)
        texts, gaps = self.encoder.texts, self.encoder.gaps
        for name in names:
            if name in gaps:
                continue  # an input marks its missing cells, as in training
            if name in texts:
                lost, what = ~columns[name].isin(texts[name]), "hold a text without an input"
            else:
                lost, what = columns[name].isna(), "hold no number: the training median is taken"
            if lost.any():
                example = f", such as {text.column(name)[int(np.argmax(lost))][:40]!r}"
                warn(
                    f"{text.path}: column {name!r}: {lost.sum()} of {len(columns)} cells {what}"
                    f"{example if name in texts else ''}"
                )
        return columns

    def to_dict(self) -> dict[str, Any]:
        """Return what was fitted, what columns hold, and how files are written."""
        form = {**asdict(self.form), "decimal": self.form.decimal.value}
        return {
            "form": {**form, "thousands": self.form.thousands.value},
            "forms": {name: asdict(self.forms[name]) for name in self.columns},
            "labels": self.target and [self.target[0], asdict(self.target[1])],
            **self.encoder.to_dict(),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the same, to the last bit."""
        form = dict(content["form"])
        target = content.get("labels")  # unknown in files of older versions
        form["decimal"], form["thousands"] = Decimal(form["decimal"]), Thousands(form["thousands"])
        return cls(
            encoder=TableEncoder.from_dict(content),
            forms={name: ColumnForm(**one) for name, one in content["forms"].items()},
            form=CSVForm(**form),
            target=target and (target[0], ColumnForm(**target[1])),
        )


def _text_of(frame: pd.DataFrame, form: CSVForm) -> TextTable:
    """Return a DataFrame as the table of a file."""
    cells = pd.DataFrame({str(name): _cells(frame[name]) for name in frame}, dtype=object)
    lines = list(range(1, len(cells) + 1))
    return TextTable(path=Path("rows"), cells=cells, lines=lines, separator=",", form=form)


def _some(texts: list[str]) -> str:
    """Return texts as a list; of many, the first ones and how many more there are."""
    more = len(texts) - _SHOWN
    return ", ".join(texts[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _cells(column: pd.Series) -> list[str]:
    """Return the values of a column as a CSV file would hold them."""
    known = column.notna()
    if pd.api.types.is_datetime64_any_dtype(column):
        return [one.isoformat() if has else "" for one, has in zip(column, known, strict=True)]
    if pd.api.types.is_float_dtype(column):
        # 12 and 12.0 are one text in a column of texts, and one number in others.
        values = column.astype(object)
        return [_number(one) if has else "" for one, has in zip(values, known, strict=True)]
    return [str(one).strip() if has else "" for one, has in zip(column, known, strict=True)]


def _number(value: float) -> str:
    whole = float(value).is_integer() and abs(value) < 1e15
    return str(int(value)) if whole else repr(float(value))
