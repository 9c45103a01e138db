"""Published tables with a number to predict, from a CSV file or a library's cache."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pandas as pd

from metaloss.data.inputs import Inputs
from metaloss.data.number_source import RegressionSource
from metaloss.data.source import Table
from metaloss.data.tables.form import CSVForm
from metaloss.data.tables.reader import read_csv
from metaloss.data.tables.table_inputs import TableInputs
from metaloss.data.tables.target import Predict, read_target
from metaloss.data.tables.text_table import TextTable
from metaloss.errors import MetalossError, unknown_name


@dataclass(frozen=True, kw_only=True)
class NamedTable(RegressionSource, CSVForm):
    """A regression on the columns of a table. Missing values are filled; see ``fit_columns``."""

    path: str = field(
        default="", metadata={"help": "a local CSV file; empty: scikit-learn's cache"}
    )
    download: bool = field(
        default=False, metadata={"help": "download the table through scikit-learn if it is missing"}
    )

    # Names of the column to predict, in different copies of the table.
    targets: ClassVar[tuple[str, ...]]
    not_inputs: ClassVar[tuple[str, ...]] = ()

    @property
    def by_hand(self) -> str:
        """How to provide the table, for messages."""
        return f"set task.path=FILE.csv (a header with a column {' or '.join(self.targets)})"

    def load(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Return the columns and the targets (n, 1)."""
        if not self.path:
            return self.cached()
        table = self.read(self.path)
        found = [name for name in self.targets if name in table.names]
        if not found:
            raise unknown_name(f"column of {self.path}", self.targets[0], table.names)
        target = read_target(table, found[0], Predict.numbers)
        left_out = {"", found[0], *self.not_inputs}
        names = [name for name in table.names if name not in left_out]
        return table.columns(names).iloc[target.rows], target.values

    def read(self, path: str) -> TextTable:
        """Return the table of a file."""
        return read_csv(path, self)

    @abstractmethod
    def cached(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Return the columns and the targets from the library's cache, or download them."""

    def fit(self, table: Table, train: np.ndarray) -> Inputs:
        """Return the encoder of the columns."""
        return TableInputs.fitted(self, table.inputs.iloc[train], table.forms)

    def missing(self, where: str) -> MetalossError:
        """Return the error for a missing table."""
        return MetalossError(f"task={self.title}: {where}; {self.by_hand}, or task.download=true")
