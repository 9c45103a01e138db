"""Base classes of tasks with numbers as inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from metaloss.data.checks import DRAWS_TEST, DRAWS_TRUSTED, fractions, number
from metaloss.data.corruptions import add_input_noise
from metaloss.data.inputs import Inputs, ScaledInputs
from metaloss.data.scaling import fit_scaling
from metaloss.data.source import RowSource, Table
from metaloss.data.targets.problems import (
    ClassOptions,
    ClassProblem,
    Problem,
    ValueOptions,
    ValueProblem,
)
from metaloss.options import unused


@dataclass(frozen=True, kw_only=True)
class NumberSource(RowSource):
    """Rows with inputs in float32."""

    input_noise: float = field(
        default=0.0,
        metadata={"help": "Gaussian noise on training inputs, in standard deviations"},
    )

    per_feature: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        number("task.input_noise", self.input_noise, 0, float("inf"), include_low=True)

    def fit(self, table: Table, train: np.ndarray) -> Inputs:
        """Return the scaling with results in float32."""
        return ScaledInputs(fit_scaling(table.inputs[train], per_feature=self.per_feature))

    def disturbed(self, inputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the training inputs with noise."""
        return add_input_noise(inputs, self.input_noise, rng, per_feature=self.per_feature)


@dataclass(frozen=True, kw_only=True)
class TableSource(NumberSource):
    """Rows without a published test split; the seed determines all splits."""

    valid_fraction: float = field(
        default=0.15,
        metadata={
            "help": "trusted rows for meta-batches, as a share of all rows",
            "needs": DRAWS_TRUSTED,
        },
    )
    test_fraction: float = field(
        default=0.25, metadata={"help": "test rows, as a share of all rows", "needs": DRAWS_TEST}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        fractions(self.valid_fraction, self.test_fraction, idle=unused(self))

    def load(self) -> tuple[Any, np.ndarray]:
        """Return all rows: float64 inputs (n, ...), and labels (n,) or targets (n, C)."""
        raise TypeError(f"{type(self).__name__} must define load() or table()")

    def table(self) -> Table:
        """Return all rows."""
        return Table(*self.load())


@dataclass(frozen=True, kw_only=True)
class ClassificationSource(TableSource, ClassOptions):
    """A classification: cross-entropy, error rate; label noise and long tails on request."""

    classes: ClassVar[int]

    def problem(self, table: Table) -> Problem:
        """Return the problem of classes."""
        return ClassProblem(outputs=self.classes, noise=self.label_noise, options=self)


@dataclass(frozen=True, kw_only=True)
class RegressionSource(TableSource, ValueOptions):
    """A regression: squared error; Gaussian outliers on request.

    Targets are standardised by the training targets before outliers are added. Task loss and metric
    ``mse`` are in these units: 1 is the variance of the training targets, which is about the score
    of predicting their mean.
    """

    def problem(self, table: Table) -> Problem:
        """Return the problem of values."""
        return ValueProblem(outputs=table.targets.shape[1], noise=self.label_noise, options=self)
