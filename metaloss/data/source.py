"""The built-in tasks' common road: load, split, thin out, scale, corrupt."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from metaloss.contracts import Task, TaskSource
from metaloss.data.checks import number, whole
from metaloss.data.constant import class_entropy, target_variance
from metaloss.data.corruptions import add_outliers, flip_labels, long_tail
from metaloss.data.metrics import error_rate, mse
from metaloss.data.scaling import fit_scaling
from metaloss.data.splits import Split, choose, split_rows
from metaloss.errors import MetalossError
from metaloss.inner.keys import derive
from metaloss.types import Batch, Link


@dataclass(frozen=True, kw_only=True)
class TableSource(TaskSource):
    """A task out of one table of rows.

    A subclass loads the rows; this class splits them, keeps a subset of the training rows, scales
    the inputs by what it sees in the kept training rows alone, and corrupts targets. Every draw
    has a generator of its own, derived from the seed and its purpose: no option changes what
    another one draws. Test rows are never corrupted.

    Raises:
        MetalossError: If an option is out of its range; at ``build``, if rows do not suffice.
    """

    label_noise: float = field(
        default=0.0, metadata={"help": "share of the training targets made wrong, 0 to below 1"}
    )
    noisy_validation: bool = field(
        default=False, metadata={"help": "the same noise on the validation targets too"}
    )
    subset: int | None = field(
        default=None, metadata={"help": "keep so many training rows; null: all"}
    )
    split_seed: int | None = field(
        default=None,
        metadata={"help": "decides every draw of the task: rows and noise; null: the run's seed"},
    )
    valid_fraction: float = field(
        default=0.15, metadata={"help": "validation rows, as a share of all rows"}
    )
    test_fraction: float = field(
        default=0.25, metadata={"help": "test rows, as a share of all rows"}
    )

    title: ClassVar[str]
    about: ClassVar[str]
    per_feature: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        number("task.label_noise", self.label_noise, 0, 1, include_low=True)
        number("task.valid_fraction", self.valid_fraction, 0, 1)
        number("task.test_fraction", self.test_fraction, 0, 1)
        if self.valid_fraction + self.test_fraction >= 1:
            raise MetalossError(
                f"task.valid_fraction={self.valid_fraction} and "
                f"task.test_fraction={self.test_fraction}: expected a sum below 1"
            )
        if self.subset is not None:
            whole("task.subset", self.subset, 1)
        if self.split_seed is not None:
            whole("task.split_seed", self.split_seed, 0)

    @abstractmethod
    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all rows: float64 inputs (n, ...), and labels (n,) or targets (n, C)."""

    def rows(self, seed: int) -> Split:
        """Return the rows of each part, as row numbers of what ``load`` returns."""
        return self._rows(self.load()[1], self._seed(seed))

    def _rows(self, targets: np.ndarray, seed: int) -> Split:
        strata = self._strata(targets)
        split = split_rows(
            len(targets),
            self.valid_fraction,
            self.test_fraction,
            _rng(seed, "split"),
            strata=strata,
        )
        train = self._thin_out(split.train, targets, seed)
        if self.subset is not None:
            if self.subset > len(train):
                raise MetalossError(
                    f"task.subset={self.subset}: expected at most {len(train)}, the training rows"
                )
            kept_strata = None if strata is None else strata[train]
            train = choose(train, self.subset, _rng(seed, "subset"), strata=kept_strata)
        return split._replace(train=train)

    def _batches(self, seed: int) -> tuple[Batch, Batch, Batch]:
        seed = self._seed(seed)
        inputs, targets = self.load()
        rows = self._rows(targets, seed)
        scale = fit_scaling(inputs[rows.train], per_feature=self.per_feature)
        targets = self._scale_targets(targets, rows.train)

        def part(name: str, picked: np.ndarray, noisy: bool) -> Batch:
            chosen = targets[picked]
            if noisy:
                chosen = self._corrupt(chosen, _rng(seed, f"noise/{name}"))
            values = torch.from_numpy(scale(inputs[picked]).astype(np.float32))
            return Batch(values, self._target_tensor(chosen))

        return (
            part("train", rows.train, True),
            part("valid", rows.valid, self.noisy_validation),
            part("test", rows.test, False),
        )

    def _seed(self, seed: int) -> int:
        return seed if self.split_seed is None else self.split_seed

    def _strata(self, targets: np.ndarray) -> np.ndarray | None:
        return None

    def _thin_out(self, train: np.ndarray, targets: np.ndarray, seed: int) -> np.ndarray:
        return train

    def _scale_targets(self, targets: np.ndarray, train: np.ndarray) -> np.ndarray:
        return targets

    @abstractmethod
    def _corrupt(self, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray: ...

    @abstractmethod
    def _target_tensor(self, targets: np.ndarray) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class ClassificationSource(TableSource):
    """Classes 0 to C − 1: cross-entropy, error rate, symmetric label noise, long tails."""

    imbalance: float = field(
        default=1.0,
        metadata={"help": "training rows of the largest class over the smallest's; 1: as they are"},
    )

    classes: ClassVar[int]

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        number("task.imbalance", self.imbalance, 1, float("inf"), include_low=True)

    def build(self, seed: int) -> Task:
        """Load and split the rows, stratified by class; the same seed gives the same task."""
        train, valid, test = self._batches(seed)
        return Task(
            name=self.title,
            train=train,
            valid=valid,
            test=test,
            link=Link.softmax,
            outputs=self.classes,
            task_loss=F.cross_entropy,
            metric_name="error",
            metric=error_rate,
            constant_loss=class_entropy(train.targets, self.classes),
            description=self.about,
        )

    def _strata(self, targets: np.ndarray) -> np.ndarray:
        return targets

    def _thin_out(self, train: np.ndarray, targets: np.ndarray, seed: int) -> np.ndarray:
        if self.imbalance == 1:
            return train
        rng = _rng(seed, "imbalance")
        return train[long_tail(targets[train], self.imbalance, self.classes, rng)]

    def _corrupt(self, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return flip_labels(targets, self.label_noise, self.classes, rng)

    def _target_tensor(self, targets: np.ndarray) -> Tensor:
        return torch.from_numpy(targets.astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class RegressionSource(TableSource):
    """Real targets: squared error, Gaussian outliers.

    Targets are standardised by the mean and deviation of the kept training targets before any is
    corrupted. The task loss and the metric ``mse`` are in those units: 1 is the variance of the
    training targets, whatever the noise, and about what predicting their mean scores.
    """

    outlier_size: float = field(
        default=5.0,
        metadata={"help": "deviation of the noise on corrupted targets, in theirs; above 0"},
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        number("task.outlier_size", self.outlier_size, 0, float("inf"))

    def build(self, seed: int) -> Task:
        """Load and split the rows; the same seed gives the same task."""
        train, valid, test = self._batches(seed)
        return Task(
            name=self.title,
            train=train,
            valid=valid,
            test=test,
            link=Link.identity,
            outputs=train.targets.shape[1],
            task_loss=F.mse_loss,
            metric_name="mse",
            metric=mse,
            constant_loss=target_variance(train.targets),
            description=self.about,
        )

    def _scale_targets(self, targets: np.ndarray, train: np.ndarray) -> np.ndarray:
        return fit_scaling(targets[train], per_feature=True)(targets)

    def _corrupt(self, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return add_outliers(targets, self.label_noise, self.outlier_size, rng)

    def _target_tensor(self, targets: np.ndarray) -> Tensor:
        return torch.from_numpy(targets.astype(np.float32))


def _rng(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(derive(seed, f"data/{purpose}"))
