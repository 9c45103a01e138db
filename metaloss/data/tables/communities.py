"""Violent crimes in communities of the United States."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.datasets import fetch_openml

from metaloss.data.files import download
from metaloss.data.tables.named_table import NamedTable
from metaloss.data.tables.reader import read_csv
from metaloss.data.tables.text_table import TextTable

_TARGET = "ViolentCrimesPerPop"
# Name and place of a community, and the fold of a cross-validation. These first columns of the
# published file are not inputs.
_KEYS = ("state", "county", "community", "communityname", "fold")
_COLUMNS = 128


@dataclass(frozen=True, kw_only=True)
class CommunitiesCrime(NamedTable):
    """Communities and Crime: 1,994 communities, 122 measurements, violent crimes per head.

    Inputs (B, D), standardised, with further columns that mark missing measurements; targets (B,
    1). The rows come from ``task.path``: the published ``communities.data`` without a header, or a
    CSV file with a column ``ViolentCrimesPerPop``. Without a path and with ``task.download=true``,
    they come from OpenML's copy (``us_crime``), by scikit-learn and its cache.

    Reference:
        Redmond & Baveja, "A Data-Driven Software Tool for Enabling Cooperative Information Sharing
        among Police Departments", European Journal of Operational Research, 2002.
    """

    title: ClassVar[str] = "communities_crime"
    about: ClassVar[str] = (
        "violent crimes per head in a community; mse: in units of the variance of the training "
        "targets before corruption"
    )
    targets: ClassVar[tuple[str, ...]] = (_TARGET,)
    not_inputs: ClassVar[tuple[str, ...]] = _KEYS

    @property
    def by_hand(self) -> str:
        """How to provide the table, for messages."""
        return (
            "set task.path=communities.data (as published) or FILE.csv (a header with a column "
            f"{_TARGET})"
        )

    def read(self, path: str) -> TextTable:
        """Return the table of a file. The published file has no header."""
        bare = read_csv(path, self, header=False)
        if len(bare.names) != _COLUMNS or _TARGET in bare.cells.iloc[0].tolist():
            return read_csv(path, self)
        names = [*_KEYS, *bare.names[len(_KEYS) : -1], _TARGET]
        return replace(bare, cells=bare.cells.set_axis(names, axis=1))

    def cached(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Return OpenML's copy, from scikit-learn's cache if possible."""
        if not self.download:
            raise self.missing("no file was given")
        table = download(self.title, _from_openml, by_hand=self.by_hand)
        names = [name for name in table.feature_names if name not in _KEYS]
        places = [table.feature_names.index(name) for name in names]
        columns = {
            name: np.asarray(table.data[:, place], dtype=np.float64)
            for name, place in zip(names, places, strict=True)
        }
        return pd.DataFrame(columns), np.asarray(table.target, dtype=np.float64)[:, None]


def _from_openml() -> Any:
    # This parser needs no further library.
    return fetch_openml("us_crime", version=1, as_frame=False, parser="liac-arff")
