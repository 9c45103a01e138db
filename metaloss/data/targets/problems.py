"""Targets of a source: how they are split, corrupted and encoded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metaloss.data.checks import NOISE, number
from metaloss.data.corruptions import NoiseKind, add_outliers, flip_labels, long_tail
from metaloss.data.scaling import Scaling, as_float32, fit_scaling
from metaloss.data.targets.class_weights import check_class_weights, class_weights
from metaloss.data.targets.kinds import Classes, Kind, Values
from metaloss.errors import MetalossError
from metaloss.options import Options


class Problem(ABC):
    """A classification or regression, with errors in its targets.

    Attributes:
        outputs: C.
    """

    outputs: int

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """The targets, task loss and metric."""

    def kind_for(self, targets: Tensor) -> Kind:
        """Return the kind, with what depends on the training targets."""
        return self.kind

    def strata(self, targets: np.ndarray) -> np.ndarray | None:
        """Return the groups by which splits are stratified; None: not stratified."""
        return None

    def kept(self, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the sorted positions of the training rows to keep."""
        return np.arange(len(targets))

    def scaling(self, targets: np.ndarray) -> Scaling | None:
        """Return the scaling of targets, fitted on the training rows; None: not scaled."""
        return None

    @abstractmethod
    def corrupted(self, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the targets with noise."""

    def tensor(self, targets: np.ndarray) -> Tensor:
        """Return the targets as a tensor for the task loss: class indices in int64."""
        return torch.from_numpy(targets.astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class LabelOptions(Options, group="task"):
    """Options of all tasks with class indices as targets."""

    noise_kind: NoiseKind = field(
        default=NoiseKind.symmetric,
        metadata={"help": "a wrong label is any other class, or the next one", "needs": NOISE},
    )


@dataclass(frozen=True, kw_only=True)
class ClassOptions(LabelOptions):
    """Options of all tasks with a class for each row."""

    imbalance: float = field(
        default=1.0,
        metadata={"help": "rows of the largest class ÷ the smallest; 1: leave them as they are"},
    )
    label_smoothing: float = field(
        default=0.0,
        metadata={"help": "label smoothing in the task loss, 0 to below 1"},
    )
    class_weights: Any = field(
        default=None,
        metadata={
            "help": "how much rows count by their class: balanced, C numbers, or numbers by class; "
            "null: all the same"
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        number("task.imbalance", self.imbalance, 1, float("inf"), include_low=True)
        number("task.label_smoothing", self.label_smoothing, 0, 1, include_low=True)
        check_class_weights(self.class_weights)


@dataclass(frozen=True, kw_only=True)
class ValueOptions(Options, group="task"):
    """Options of all tasks with real targets."""

    outlier_size: float = field(
        default=5.0,
        metadata={
            "help": "size of the noise on wrong numbers, in standard deviations, > 0",
            "needs": NOISE,
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        number("task.outlier_size", self.outlier_size, 0, float("inf"))


@dataclass(frozen=True, kw_only=True)
class ClassProblem(Problem):
    """A classification, perhaps with a share ``noise`` of wrong labels or a long tail."""

    outputs: int
    noise: float
    options: ClassOptions
    names: list[str] | None = None

    @property
    def kind(self) -> Kind:
        """Classes."""
        return Classes(label_smoothing=self.options.label_smoothing)

    def kind_for(self, targets: Tensor) -> Kind:
        """Return classes with their weights."""
        options = self.options
        weights = class_weights(options.class_weights, targets, self.outputs, names=self.names)
        return Classes(label_smoothing=options.label_smoothing, weights=weights)

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Return the classes."""
        return targets

    def kept(self, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return all rows, or a long tail of them."""
        if self.options.imbalance == 1:
            return np.arange(len(targets))
        for empty in np.flatnonzero(np.bincount(targets, minlength=self.outputs) == 0):
            name = repr(self.names[empty]) if self.names else str(empty)
            raise MetalossError(
                f"task.imbalance={self.options.imbalance}: class {name} has no training rows; "
                "expected one or more of each class"
            )
        return long_tail(targets, self.options.imbalance, self.outputs, rng)

    def corrupted(self, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the labels with a share of them wrong."""
        return flip_labels(targets, self.noise, self.outputs, rng, self.options.noise_kind)


@dataclass(frozen=True, kw_only=True)
class ValueProblem(Problem):
    """A regression in units of the training targets' variance, perhaps with outliers."""

    outputs: int
    noise: float
    options: ValueOptions

    @property
    def kind(self) -> Kind:
        """Real values."""
        return Values()

    def scaling(self, targets: np.ndarray) -> Scaling:
        """Return the scaling by mean and deviation of the training targets."""
        return fit_scaling(targets, per_feature=True)

    def corrupted(self, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the targets with a share of outliers."""
        return add_outliers(targets, self.noise, self.options.outlier_size, rng)

    def tensor(self, targets: np.ndarray) -> Tensor:
        """Return (n, C) float32."""
        return torch.from_numpy(as_float32(targets))
