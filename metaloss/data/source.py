"""The base class of built-in tasks: load rows, split them, scale inputs, corrupt targets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metaloss.contracts import Task, TaskSource
from metaloss.data.checks import NOISE, number
from metaloss.data.inputs import Inputs
from metaloss.data.lazy import LazyRows
from metaloss.data.pipeline import FittedPipeline
from metaloss.data.splits import Split, choose, part_of, split_rest
from metaloss.data.tables.columns import check_differ
from metaloss.data.tables.table_inputs import TableInputs
from metaloss.data.targets.problems import Problem
from metaloss.data.targets.scores import check_scores
from metaloss.errors import MetalossError, check_whole
from metaloss.inner.keys import derive
from metaloss.types import Batch


class Table(NamedTuple):
    """All rows of a task.

    Attributes:
        inputs: n rows, an array or a table.
        targets: Labels (n,) or values (n, C).
        given: Row numbers of splits that are not drawn, such as a published test split.
        name: The task's name; None: that of the source.
        about: The task's description; None: that of the source.
        classes: The names of the classes; None: their numbers.
        forms: The types of the columns of a table.
        origins: Where the rows of a split come from, in words.
        places: A column that says where each row that may be a training row is from, such as
            ``{"line": [2, 3]}``. Empty: row numbers from 0.
    """

    inputs: Any
    targets: np.ndarray
    given: Mapping[str, np.ndarray] = MappingProxyType({})
    name: str | None = None
    about: str | None = None
    classes: list[str] | None = None
    forms: Mapping[str, Any] = MappingProxyType({})
    origins: Mapping[str, str] = MappingProxyType({})
    places: Mapping[str, Sequence[Any]] = MappingProxyType({})

    def picked(self, rows: np.ndarray) -> Any:
        """Return the inputs of some rows."""
        return getattr(self.inputs, "iloc", self.inputs)[rows]


@dataclass(frozen=True, kw_only=True)
class RowSource(TaskSource):
    """A task of rows that are split by the seed.

    A subclass loads the rows. This class splits them, keeps a subset of the training rows, scales
    the inputs by the kept training rows, and corrupts training rows. Each draw has its own
    generator, derived from the seed and the purpose, so that no option changes what another one
    draws. Test rows are never corrupted, except in the place of which ``folds`` puts trusted rows.

    Raises:
        MetalossError: If an option is out of range, or at ``build`` if there are too few rows.
    """

    label_noise: float = field(
        default=0.0, metadata={"help": "share of the training targets that are wrong, in [0, 1)"}
    )
    noisy_validation: bool = field(
        default=False,
        metadata={"help": "put the same noise on the validation targets", "needs": NOISE},
    )
    subset: int | None = field(
        default=None, metadata={"help": "number of training rows to keep; null: all"}
    )
    meta_fraction: float = field(
        default=1.0,
        metadata={"help": "share of the validation rows, not of all rows, to keep as trusted rows"},
    )
    folds: int = field(
        default=0,
        metadata={
            "help": "parts of the trusted rows; the part of number seed modulo folds takes the "
            "place of the test rows, so that settings can be chosen without these; 0: none"
        },
    )
    split_seed: int | None = field(
        default=None,
        metadata={"help": "seed of the task's rows and noise; null: the run's seed"},
    )
    metrics: list[str] = field(
        default_factory=list,
        metadata={
            "help": "further metrics at the end: accuracy, balanced_accuracy, f1_macro, "
            "f1_weighted, auroc, average_precision, log_loss, mcc; rmse, mae, r2"
        },
    )

    title: ClassVar[str]
    about: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        number("task.label_noise", self.label_noise, 0, 1, include_low=True)
        number("task.meta_fraction", self.meta_fraction, 0, 1, include_high=True)
        check_whole("task.folds", self.folds, 0)
        if self.subset is not None:
            check_whole("task.subset", self.subset, 1)
        if self.split_seed is not None:
            check_whole("task.split_seed", self.split_seed, 0)

    @abstractmethod
    def table(self) -> Table:
        """Return all rows."""

    @abstractmethod
    def problem(self, table: Table) -> Problem:
        """Return the problem of the targets."""

    def split(self, table: Table, strata: np.ndarray | None, rng: np.random.Generator) -> Split:
        """Return the rows of each split, before rows are left out: given ones, and shares."""
        shares = [getattr(self, f"{part}_fraction") for part in ("valid", "test")]
        return split_rest(len(table.targets), table.given, shares, rng, strata=strata)

    @abstractmethod
    def fit(self, table: Table, train: np.ndarray) -> Inputs:
        """Return the encoding of rows as inputs, fitted on the rows with the numbers ``train``."""

    def disturbed(self, inputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the training inputs with errors."""
        return inputs

    def inputs_of(self, encode: Inputs, rows: Any, part: str, seed: int) -> Tensor:
        """Return the inputs (n, ...) of rows; those of training rows may have errors."""
        values = encode(rows)
        if part == "train":
            values = self.disturbed(values, _rng(seed, "input_noise"))
        return torch.from_numpy(values)

    def augmentation(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Return the augmentation of training batches; None: none."""
        return None

    def rows(self, seed: int) -> Split:
        """Return the row numbers of each split."""
        table = self.table()
        return self._rows(table, self.problem(table), self._seed(seed), seed)

    def build(self, seed: int) -> Task:
        """Load and split the rows, stratified by class. The same seed gives the same task."""
        fold, seed = seed, self._seed(seed)
        table = self.table()
        problem = self.problem(table)
        kind = problem.kind
        metrics = check_scores(self.metrics, kind.link, kind.metric_name)
        rows = self._rows(table, problem, seed, fold)
        inputs = self.fit(table, rows.train)
        scaling = problem.scaling(table.targets[rows.train])
        targets = table.targets if scaling is None else scaling(table.targets)
        train, valid, test = self._batches(
            table._replace(targets=targets), problem, rows, inputs, seed
        )
        kind = problem.kind_for(train.targets)
        return Task(
            name=table.name or self.title,
            train=train,
            valid=valid,
            test=test,
            link=kind.link,
            outputs=problem.outputs,
            task_loss=kind.task_loss,
            metric_name=kind.metric_name,
            metric=kind.metric,
            constant_loss=kind.constant_loss(train.targets, problem.outputs),
            class_weights=kind.weights,
            description=table.about or self.about,
            augment=self.augmentation(),
            places={
                name: [one[row] for row in rows.train]
                for name, one in (table.places or {"row": range(len(table.targets))}).items()
            },
            metrics=metrics,
            origins=self._origins(table),
            pipeline=FittedPipeline(
                inputs=inputs,
                link=kind.link,
                outputs=problem.outputs,
                input_shape=tuple(train.inputs.shape[1:]),
                classes=table.classes,
                scaling=scaling,
            ),
        )

    def _origins(self, table: Table) -> dict[str, str]:
        origins = dict(table.origins)
        wrong = f"{self.label_noise:.3g} of the targets made wrong" if self.label_noise else ""
        kept = f"{self.meta_fraction:.3g} of the validation rows" if self.meta_fraction < 1 else ""
        more = {"train": [wrong], "valid": [kept, wrong if self.noisy_validation else ""]}
        for part, said in more.items():
            origins[part] = "; ".join(one for one in (origins.get(part, ""), *said) if one)
        if self.folds:
            origins["test"] = "trusted rows that are held out"
        return origins

    def _rows(self, table: Table, problem: Problem, seed: int, fold: int) -> Split:
        strata = problem.strata(table.targets)

        def some(rows: np.ndarray, count: int, purpose: str) -> np.ndarray:
            kept = None if strata is None else strata[rows]
            return choose(rows, count, _rng(seed, purpose), strata=kept)

        train, valid, test = self.split(table, strata, _rng(seed, "split"))
        train = train[problem.kept(table.targets[train], _rng(seed, "imbalance"))]
        if self.subset is not None:
            if self.subset > len(train):
                raise MetalossError(
                    f"task.subset={self.subset}: expected at most {len(train)}, the training rows"
                )
            train = some(train, self.subset, "subset")
        if self.meta_fraction < 1:
            count = round(self.meta_fraction * len(valid))
            if count < 1:
                raise MetalossError(
                    f"task.meta_fraction={self.meta_fraction}: no trusted rows left, of "
                    f"{len(valid)}; expected at least {1 / len(valid):.2g}"
                )
            valid = some(valid, count, "meta")
        if self.folds:
            if not 2 <= self.folds <= len(valid):
                raise MetalossError(
                    f"task.folds={self.folds}: expected 2 to {len(valid)}, the number of trusted "
                    "rows; or 0"
                )
            kept = None if strata is None else strata[valid]
            number = fold % self.folds
            test = part_of(valid, self.folds, number, _rng(seed, "folds"), strata=kept)
            valid = np.setdiff1d(valid, test)
        return Split(train, valid, test)

    def _batches(
        self, table: Table, problem: Problem, rows: Split, encode: Inputs, seed: int
    ) -> list[Batch]:
        trusted = self.noisy_validation
        noisy = {"train": True, "valid": trusted, "test": trusted and self.folds > 0}
        parts = []
        for name, picked in rows._asdict().items():
            inputs = self.inputs_of(encode, table.picked(picked), name, seed)
            chosen = table.targets[picked]
            if noisy[name]:
                chosen = problem.corrupted(chosen, _rng(seed, f"noise/{name}"))
            parts.append(Batch(inputs, problem.tensor(chosen)))
            self._check_part(name, parts[-1], problem)
        if isinstance(encode, TableInputs):
            check_differ(self.title, parts[-1].inputs)
        return parts

    def _check_part(self, part: str, batch: Batch, problem: Problem) -> None:
        for what, values in batch._asdict().items():
            if isinstance(values, LazyRows):
                continue  # each batch is checked when it is read
            if values.is_floating_point() and not bool(values.isfinite().all()):
                raise MetalossError(
                    f"task={self.title}: {what} of {part} rows are too large or not finite after "
                    "scaling by the training rows; expected numbers below 3e38"
                )
        problem.kind.check(part, batch.targets, problem.outputs)

    def _seed(self, seed: int) -> int:
        return seed if self.split_seed is None else self.split_seed


def origins_of(path: str, trusted: str, test: str) -> dict[str, str]:
    """Return where rows come from, in words; without a place of their own, they are drawn.

    Example:
        >>> origins_of("all.csv", "checked.csv", "")
        {'train': 'all.csv', 'valid': 'checked.csv', 'test': 'drawn from all.csv'}
    """
    places = {"train": path, "valid": trusted, "test": test}
    drawn = f"drawn from {Path(path).name}"
    return {part: Path(place).name if place else drawn for part, place in places.items()}


def _rng(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(derive(seed, f"data/{purpose}"))
