"""What was fitted on the inputs of the training rows: it encodes new rows, and is plain data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from metaloss.data.scaling import Scaling, as_float32
from metaloss.errors import MetalossError


class Inputs(ABC):
    """From rows to a model's inputs.

    Attributes:
        kind: By which the stored numbers find their class again.
        in_files: Whether rows can be read from a file.
    """

    kind: ClassVar[str]

    def __str__(self) -> str:
        """Return in one line what the inputs are made of; empty: nothing is known."""
        return ""

    @abstractmethod
    def __call__(self, rows: Any) -> np.ndarray:
        """Return the inputs (n, ...) of rows in the form that the task holds them in."""

    def read(self, path: Path) -> tuple[Any, dict[str, list]]:
        """Return the rows of a file in that form, and a column that says where each row is from.

        Raises:
            MetalossError: If the rows cannot be read.
        """
        raise MetalossError(
            f"{path}: the run's task reads no new rows from files; predict from Python, with "
            "metaloss.load_run(folder).predict(rows)"
        )

    def labelled(self, path: Path, classes: list[str] | None) -> tuple[Any, Any]:
        """Return the rows of a file and their targets: names of classes, or values.

        Raises:
            MetalossError: If the rows or targets cannot be read, or a class is not in ``classes``.
        """
        raise MetalossError(
            f"{path}: the run's task reads no rows from files; without a file, its own test rows "
            "are used"
        )

    def taken(self, rows: Any) -> Any:
        """Return rows of the user's in that form.

        Raises:
            MetalossError: If they cannot be.
        """
        return np.asarray(rows.cpu() if isinstance(rows, Tensor) else rows)

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return what was fitted as plain data."""

    @classmethod
    @abstractmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return what ``to_dict`` wrote down, to the last bit."""


@dataclass(frozen=True)
class ScaledInputs(Inputs):
    """Arrays of numbers, shifted and scaled: float32."""

    scaling: Scaling
    kind = "scaled"

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return (n, ...) float32."""
        return as_float32(self.scaling(rows))

    def to_dict(self) -> dict[str, Any]:
        """Return mean and deviation."""
        return scaling_to_dict(self.scaling)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the same scaling."""
        return cls(scaling_from_dict(content))


class GivenInputs(Inputs):
    """Rows that are inputs as they are."""

    kind = "given"

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return whole numbers as int64, others in torch's default type."""
        if rows.dtype.kind in "iu":
            return rows.astype(np.int64)
        return rows if torch.get_default_dtype() is torch.float64 else as_float32(rows)

    def to_dict(self) -> dict[str, Any]:
        """Return nothing: nothing was fitted."""
        return {}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the rows as they are."""
        return cls()


def scaling_to_dict(scaling: Scaling) -> dict[str, Any]:
    """Return a scaling as plain data.

    Example:
        >>> scaling_to_dict(Scaling(np.array([0.5]), np.array([2.0])))
        {'type': 'float64', 'mean': [0.5], 'deviation': [2.0]}
    """
    mean, deviation = (np.asarray(values) for values in scaling)
    return {"type": mean.dtype.name, "mean": mean.tolist(), "deviation": deviation.tolist()}


def scaling_from_dict(content: Mapping[str, Any]) -> Scaling:
    """Return the scaling that `scaling_to_dict` wrote down, to the last bit."""
    mean, deviation = (
        np.array(content[name], dtype=content["type"]) for name in ("mean", "deviation")
    )
    return Scaling(mean, deviation)
