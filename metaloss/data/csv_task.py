"""A task from any CSV file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from metaloss.data.corruptions import NoiseKind
from metaloss.data.inputs import Inputs
from metaloss.data.number_source import TableSource
from metaloss.data.source import Table, origins_of
from metaloss.data.tables.form import CSVForm
from metaloss.data.tables.parts import joined_rows, marked_rows
from metaloss.data.tables.reader import read_csv
from metaloss.data.tables.table_inputs import TableInputs
from metaloss.data.tables.target import Predict, Target, read_target
from metaloss.data.tables.text_table import TextTable
from metaloss.data.targets.problems import (
    ClassOptions,
    ClassProblem,
    Problem,
    ValueOptions,
    ValueProblem,
)
from metaloss.errors import MetalossError, check_whole, unknown_name

_FEWEST_ROWS = 20


@dataclass(frozen=True, kw_only=True)
class CSV(TableSource, CSVForm, ClassOptions, ValueOptions):
    r"""Your own table: a CSV file with a header.

    Inputs (B, D): numbers are standardised, texts one-hot encoded, missing values filled (see
    `fit_columns`). Only training rows are used to fit this. A target of text, or of a few different
    whole numbers, gives a classification (cross-entropy, ``error``). Other numbers give a
    regression (squared error, ``mse``), in units of the variance of the training targets. Rows
    without a target are left out, and so are columns without a name, which often have row numbers.

    Trusted rows (for meta-batches) and test rows are drawn from the file, or read from files of
    their own with the same columns in any order.

    Raises:
        MetalossError: At ``build``, if the file or a column is invalid.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "pets.csv"
        >>> lines = [f"{i % 7},{'cat' if i % 7 > 3 else 'dog'}" for i in range(60)]
        >>> _ = path.write_text("\n".join(["weight,kind", *lines]))
        >>> task = CSV(path=str(path), target="kind").build(seed=0)
        >>> task.name, task.outputs, task.train.inputs.shape, task.metric_name
        ('pets', 2, torch.Size([36, 1]), 'error')
    """

    path: str = field(default="", metadata={"help": "the CSV file, with a header; may be .gz"})
    trusted: str = field(
        default="",
        metadata={"help": "a CSV file of trusted rows, for meta-batches; empty: drawn"},
    )
    trusted_column: str = field(
        default="", metadata={"help": "or a column of yes and no that marks the trusted rows"}
    )
    test: str = field(default="", metadata={"help": "a CSV file of test rows; empty: drawn"})
    target: str = field(default="", metadata={"help": "name of the column to predict"})
    predict: Predict = field(
        default=Predict.auto,
        metadata={"help": "what the target is: classes, numbers, or auto: by its values"},
    )
    drop: list[str] = field(default_factory=list, metadata={"help": "columns to leave out"})
    most_categories: int = field(
        default=50,
        metadata={"help": "how many of a column's texts get an input, the most frequent first"},
    )

    title: ClassVar[str] = "csv"
    about: ClassVar[str] = "rows of a CSV file"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("task.most_categories", self.most_categories, 1)
        if self.trusted and self.trusted_column:
            raise MetalossError("task.trusted and task.trusted_column: expected one of them")

    def table(self) -> Table:
        """Return the columns and the targets, without rows that have no target."""
        if not self.path:
            raise MetalossError("task=csv: expected task.path=FILE.csv and task.target=COLUMN")
        text = read_csv(self.path, self)
        self._check_names(text)
        target = read_target(text, self.target, self.predict)
        if len(target.rows) < _FEWEST_ROWS:
            raise MetalossError(
                f"{self.path}: {len(target.rows)} rows with a target; expected at least "
                f"{_FEWEST_ROWS}"
            )
        self._check_options(target)
        left_out = {"", self.target, self.trusted_column, *self.drop}
        names = [name for name in text.names if name not in left_out]
        if not names:
            raise MetalossError(f"{self.path}: expected one or more columns beside the target")
        files = {"valid": self.trusted, "test": self.test}
        files = {part: path for part, path in files.items() if path}
        rows = joined_rows(text, target, [self.target, *names], files)
        given = dict(rows.given)
        if self.trusted_column:
            marked = marked_rows(text, self.trusted_column)[target.rows]
            given["valid"] = np.flatnonzero(marked)
        return Table(
            rows.inputs,
            rows.target.values,
            given=given,
            forms=rows.forms,
            places={"line": [text.lines[row] for row in target.rows]},
            name=Path(self.path).stem,
            classes=rows.target.classes,
            about=self._about(text, target, rows.target),
            origins=self._places(),
        )

    def _places(self) -> dict[str, str]:
        origins = origins_of(self.path, self.trusted, self.test)
        if self.trusted_column:
            origins["valid"] = f"marked in column {self.trusted_column}"
        return origins

    def problem(self, table: Table) -> Problem:
        """Return the problem of classes or of values."""
        if table.targets.ndim == 1:
            assert table.classes is not None
            return ClassProblem(
                outputs=len(table.classes),
                noise=self.label_noise,
                options=self,
                names=table.classes,
            )
        return ValueProblem(outputs=1, noise=self.label_noise, options=self)

    def fit(self, table: Table, train: np.ndarray) -> Inputs:
        """Return the encoder of the columns."""
        rows, most = table.inputs.iloc[train], self.most_categories
        fitted = TableInputs.fitted(self, rows, table.forms, most=most)
        return replace(fitted, target=(self.target, table.forms[self.target]))

    def _about(self, text: TextTable, first: Target, target: Target) -> str:
        """Return what is predicted, and the rows and columns that are left out."""
        lost, unnamed = len(text.lines) - len(first.rows), "" in text.names
        if target.classes is None:
            about = f"{self.target} from the other columns; mse: in units of its training variance"
        else:
            shown = ", ".join(target.classes[:10]) + (", ..." if len(target.classes) > 10 else "")
            about = f"{self.target} ({shown}) from the other columns; error: share of wrong classes"
        parts = [about, *([f"{lost} rows without a target left out"] if lost else [])]
        columns = [*self.drop, *(["columns without a name"] if unnamed else [])]
        return "; ".join([*parts, *([f"left out: {', '.join(columns)}"] if columns else [])])

    def _check_names(self, text: TextTable) -> None:
        known = [name for name in text.names if name]
        if not self.target:
            raise MetalossError(
                f"task.path={self.path}: expected task.target=COLUMN, one of: {', '.join(known)}"
            )
        for name in (self.target, *self.drop):
            if name not in known:
                raise unknown_name(f"column of {self.path}", name, known)

    def _check_options(self, target: Target) -> None:
        of_classes = {
            "noise_kind=pair": self.noise_kind is not NoiseKind.symmetric,
            f"imbalance={self.imbalance}": self.imbalance != 1,
            f"label_smoothing={self.label_smoothing}": self.label_smoothing != 0,
            f"class_weights={self.class_weights}": self.class_weights is not None,
        }
        for option, is_set in of_classes.items():
            if is_set and target.classes is None:
                raise MetalossError(
                    f"task.{option}: the target {self.target!r} has numbers; expected classes (use "
                    "task.predict=classes)"
                )
