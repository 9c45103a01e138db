"""The encoding of columns of numbers and text as inputs for a network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor

from metaloss.data.files import warn
from metaloss.data.scaling import fit_scaling
from metaloss.errors import MetalossError


@dataclass(frozen=True, kw_only=True)
class TableEncoder:
    """The fitted encoding of a table: ``DataFrame -> (n, D)`` float64.

    Attributes:
        transformer: The fitted transformer of scikit-learn: for numbers, gaps and texts.
        order: The position in its result of each of the D inputs, in the order of the columns.
        names: The names of the D inputs.
        left_out: The columns without inputs, with the reason; empty if the encoder was stored.
    """

    transformer: ColumnTransformer
    order: np.ndarray
    names: list[str]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, columns: pd.DataFrame) -> np.ndarray:
        """Return the inputs (n, D) of n rows."""
        # Row by row in memory: products with rows that lie otherwise may differ in the last digit.
        return np.ascontiguousarray(self.transformer.transform(columns)[:, self.order])

    @property
    def columns(self) -> list[str]:
        """The columns that have inputs."""
        return list(self.transformer.feature_names_in_)

    @property
    def gaps(self) -> list[str]:
        """The columns of numbers that have an input for missing cells."""
        steps = {name: columns for name, _, columns in self.transformer.transformers_}
        return list(steps.get("gaps", ()))

    @property
    def texts(self) -> dict[str, list[str]]:
        """The texts that get an input, for each column of texts."""
        for step, encoder, columns in self.transformer.transformers_:
            if step == "texts":
                known = (texts.tolist() for texts in encoder.categories_)
                return dict(zip(columns, known, strict=True))
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Return the encoding as plain data: for each column, its numbers or its texts."""
        fitted: dict[str, dict[str, Any]] = {name: {} for name in self.columns}
        steps = {name: (step, columns) for name, step, columns in self.transformer.transformers_}
        if "numbers" in steps:
            (imputer, scaler), columns = steps["numbers"]
            found = (imputer.statistics_, scaler.mean_, scaler.scale_)
            for name, median, mean, deviation in zip(columns, *found, strict=True):
                fitted[name] = {"median": float(median), "mean": float(mean)}
                fitted[name]["deviation"] = float(deviation)
        for name in self.gaps:
            fitted[name]["gaps"] = True
        for name, texts in self.texts.items():
            fitted[name]["texts"] = texts
        return {"columns": fitted}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the encoder of ``to_dict``, equal to the last bit."""
        fitted = content["columns"]
        scaled = {name: one for name, one in fitted.items() if "median" in one}
        texts = {name: one["texts"] for name, one in fitted.items() if "texts" in one}
        transformer = _transformer(
            list(scaled), [name for name, one in fitted.items() if one.get("gaps")], texts
        )
        # Fitting on one row sets everything but the scale: its numbers are their own median.
        row = {name: [one.get("median", 0.0)] for name, one in fitted.items()}
        row |= {name: [known[0]] for name, known in texts.items()}
        transformer.fit(pd.DataFrame({name: row[name] for name in fitted}))
        if scaled:
            scaler = transformer.named_transformers_["numbers"][-1]
            scaler.mean_ = np.array([one["mean"] for one in scaled.values()])
            scaler.scale_ = np.array([one["deviation"] for one in scaled.values()])
        return cls._of(transformer)

    @classmethod
    def _of(cls, transformer: ColumnTransformer, left_out: Mapping[str, str] | None = None) -> Self:
        """Return the encoder of a fitted transformer."""
        made: list[tuple[str, str]] = []
        for step, fitted, columns in transformer.transformers_:
            for place, name in enumerate(columns):
                if step == "texts":
                    made += [(name, f"{name}={text}") for text in fitted.categories_[place]]
                else:
                    made.append((name, f"{name} is missing" if step == "gaps" else name))
        places = {name: place for place, name in enumerate(transformer.feature_names_in_)}
        order = np.argsort([places[column] for column, _ in made], kind="stable")
        names = [made[one][1] for one in order]
        return cls(transformer=transformer, order=order, names=names, left_out=left_out or {})


def fit_columns(
    train: pd.DataFrame, *, most: int = 50, parts: Collection[str] = ()
) -> TableEncoder:
    """Return an encoding of a table as numbers, fitted on training rows.

    Numbers are standardised. A missing number is replaced by the median; if training rows have
    missing numbers, a further input marks them. Texts are one-hot encoded; a text that is not in
    the training rows is 0 everywhere. Columns that are constant, or have a different text in every
    row (a name, an identifier), are left out with a warning.

    Args:
        train: The training rows: columns of float64 with NaN for missing values, or of text.
        most: The most texts of a column that get an input; the most frequent ones are used.
        parts: Columns that were computed from others: no warning if one is left out, and no input
            for its missing cells.

    Raises:
        MetalossError: If no column is left.

    Example:
        >>> ages, towns = [1.0, np.nan, 3.0], ["Rome", "Oslo", "Rome"]
        >>> encode = fit_columns(pd.DataFrame({"age": ages, "town": towns}))
        >>> encode(pd.DataFrame({"age": [2.0], "town": ["Rome"]}))
        array([[0., 0., 0., 1.]])
        >>> encode.names
        ['age', 'age is missing', 'town=Oslo', 'town=Rome']
    """
    numbers = [name for name in train if train[name].dtype == np.float64]
    scaled = [name for name in numbers if train[name].nunique() > 1]
    gaps = [
        name
        for name in numbers
        if train[name].isna().any() and train[name].notna().any() and name not in parts
    ]
    texts = {
        name: kept for name in train if name not in numbers and (kept := _kept(train[name], most))
    }
    without = [name for name in train if name not in {*scaled, *gaps, *texts}]
    if len(without) == train.shape[1]:
        raise MetalossError(
            f"expected a column to learn from: each of {', '.join(train)} is constant, empty, or "
            "a text that differs in every training row"
        )
    left_out = {name: _useless(train[name]) for name in without if name not in parts}
    if left_out:
        warn(
            f"left out, because each is constant, empty, or a text that differs in every training "
            f"row: {', '.join(left_out)}"
        )
    transformer = _transformer(scaled, gaps, texts)
    return TableEncoder._of(transformer.fit(train.drop(columns=without)), left_out)


def check_differ(title: str, inputs: Tensor) -> None:
    """Raise if the inputs (n, D) are the same in all rows."""
    if len(inputs) > 1 and bool((inputs == inputs[0]).all()):
        raise MetalossError(
            f"task={title}: every input is the same in all {len(inputs)} test rows; expected "
            "inputs that differ (were numbers read as texts?)"
        )


class _Standardizer(StandardScaler):
    """scikit-learn's scaler, fitted by ``fit_scaling``, whose sums do not overflow."""

    def fit(self, rows: np.ndarray, targets: None = None) -> Self:
        """Set the mean and the deviation of each column."""
        pairs = [fit_scaling(np.ascontiguousarray(one), per_feature=True) for one in rows.T]
        self.mean_, self.scale_ = (np.array(both) for both in zip(*pairs, strict=True))
        self.n_features_in_ = rows.shape[1]
        return self


def _transformer(
    scaled: list[str], gaps: list[str], texts: Mapping[str, list[str]]
) -> ColumnTransformer:
    median, scaler = SimpleImputer(strategy="median"), _Standardizer()
    kept = [np.array(one, dtype=object) for one in texts.values()]
    # Unknown texts are 0 everywhere.
    encoder = OneHotEncoder(categories=kept, handle_unknown="ignore", sparse_output=False)
    steps = [
        ("numbers", make_pipeline(median, scaler), scaled),
        ("gaps", MissingIndicator(features="all"), gaps),
        ("texts", encoder, list(texts)),
    ]
    return ColumnTransformer([step for step in steps if step[2]])


def _useless(column: pd.Series) -> str:
    """Return why a column has no inputs."""
    if column.isna().all():
        return "empty"
    return "constant" if column.nunique() == 1 else "a text that differs in every row"


def _kept(column: pd.Series, most: int) -> list[str]:
    """Return the texts of a column that get an input, sorted; none if it is left out."""
    # Equally frequent texts are in alphabetical order.
    counts = column.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    if len(counts) == 1 or len(counts) == len(column):
        return []
    if len(counts) > most:
        warn(
            f"column {column.name!r} has {len(counts)} different texts: the {most} most frequent "
            f"ones get an input, the others, in {counts.iloc[most:].sum()} of {len(column)} "
            "training rows, do not"
        )
    return sorted(counts.index[:most])
