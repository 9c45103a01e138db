"""The contract of a task: rows, a task loss, a metric and a link."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from metaloss.inner.fields import as_inputs, named, shape_of
from metaloss.inner.weighted import by_class, weighted_mean
from metaloss.options import Options
from metaloss.types import Batch, Link


class Pipeline(ABC):
    """From new rows to a model's inputs, and from its raw outputs to predictions.

    Attributes:
        classes: What the C classes are called; None: by their numbers.
    """

    classes: list[str] | None = None

    def __str__(self) -> str:
        """Return in one line what the inputs are made of; empty: nothing is known."""
        return ""

    @abstractmethod
    def encode(self, rows: Any) -> Tensor:
        """Return the inputs (n, ...) of new rows."""

    @abstractmethod
    def predictions(self, outputs: Tensor) -> Any:
        """Return raw outputs (B, C, *) as a table that people read."""

    def in_units(self, values: Tensor) -> Tensor:
        """Return values (B, C, *) in the units of the targets before they were scaled."""
        return values

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the pipeline as plain data, such as JSON holds: nothing to execute."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The rows of a task, its task loss, its metric and its link.

    To make one from your own rows, use `metaloss.task_from_data`.

    Attributes:
        name: Shown in tables; part of a run's default folder name.
        train: All training rows, including those with wrong labels.
        valid: Validation rows, disjoint from ``train``. By default, meta-batches are drawn here.
        test: Test rows. They are only evaluated.
        jury: Trusted rows that are not in ``valid`` and choose a run's weights; None: there are
            none. A run puts them here; see ``schedule.jury``.
        link: What turns the model's raw outputs into predictions.
        outputs: C, the number of outputs that a model for this task must have.
        task_loss: ``(raw outputs (B, C, *), targets) -> scalar``, the objective that φ is learned
            by.
        metric_name: For example ``"error"`` or ``"mse"``.
        metric: ``(raw outputs (B, C, *), targets) -> scalar``, a mean over rows.
        goal: Whether lower (``"min"``) or higher (``"max"``) values of the metric are better.
        constant_loss: The task loss of the best constant prediction on the training targets.
            A model with a larger task loss has learned nothing.
        description: One line to show.
        augment: ``(inputs (B, ...), key) -> inputs (B, ...)``, applied to training batches only.
            The result must depend only on the inputs and on the key, a 0-d int64 tensor on their
            device.
        ignore_index: The class index of targets that do not count in the task loss, the metric and
            the learned loss.
        stream: Whether the inputs stay in the CPU's memory and are moved batch by batch. None: if
            they would take more than half of the device's free memory.
        places: A column that says where each training row is from, such as ``{"line": [2, 5]}``.
            Empty: row numbers from 0.
        pipeline: What was fitted on the training rows, for predictions of new rows. None: rows
            are inputs as they are.
        metrics: Names of further metrics, computed at the end of a run; see `metaloss list task`.
        class_weights: C weights ≥ 0: in training and in the task loss, every row counts as much as
            its class. Each loss is a weighted mean: the sum of weight times loss over the rows,
            divided by the sum of the weights, as in torch's cross-entropy with ``weight``. The
            metric is without weights. None: all rows count the same.
        origins: Where the rows of ``train``, ``valid`` and ``test`` come from, in words such as
            ``"drawn from pets.csv"``; empty: not known.

    Example:
        >>> import torch
        >>> from metaloss import task_from_data
        >>> rows = torch.randn(40, 3), torch.arange(40) % 2
        >>> task = task_from_data(rows, test=rows, name="mine")
        >>> task.input_shape, task.outputs, task.link.name
        ((3,), 2, 'softmax')
    """

    name: str
    train: Batch
    valid: Batch
    test: Batch
    link: Link
    outputs: int
    task_loss: Callable[[Tensor, Tensor], Tensor]
    metric_name: str
    metric: Callable[[Tensor, Tensor], Tensor]
    goal: str = "min"
    constant_loss: float
    description: str = ""
    augment: Callable[[Tensor, Tensor], Tensor] | None = None
    stream: bool | None = None
    ignore_index: int = -100
    pipeline: Pipeline | None = None
    places: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    class_weights: tuple[float, ...] | None = None
    jury: Batch | None = None

    def weighted_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the task loss of rows (B, C), a mean with the weights of their classes."""
        if self.class_weights is None:
            return self.task_loss(outputs, targets)
        weights = torch.tensor(self.class_weights, dtype=outputs.dtype, device=outputs.device)
        known = by_class(targets, weights, self.ignore_index)
        return weighted_mean(self.task_loss, outputs, known, self.ignore_index)

    def __str__(self) -> str:
        """Return five lines: what the task is, its rows, inputs, targets and metric."""
        made_of = f": {self.pipeline}" if self.pipeline and str(self.pipeline) else ""
        train, trusted = self._part("train", "to train"), self._part("valid", "trusted")
        test = "the same to test" if self.test is self.valid else self._part("test", "to test")
        better = {"min": "lower", "max": "higher"}[self.goal]
        return "\n".join(
            [
                f"{self.name}: {self.description or 'no description'}",
                f"rows: {train}, {trusted}, {test}",
                f"inputs: {self._inputs()}{made_of}",
                f"targets: {self._targets()}",
                f"metric: {self.metric_name}, {better} is better; task loss of the best constant "
                f"prediction: {self.constant_loss:.4g}",
            ]
        )

    def _inputs(self) -> str:
        """Return the shape and type of each tensor of the inputs."""
        fields = named(as_inputs(self.train.inputs)).items()
        return ", ".join(
            f"{name} ({', '.join(map(str, value.shape[1:]))}) ".lstrip()
            + str(value.dtype).removeprefix("torch.")
            for name, value in fields
        )

    def _part(self, part: str, use: str) -> str:
        origin = self.origins.get(part)
        return f"{len(getattr(self, part).targets)} {use}" + (f" ({origin})" if origin else "")

    def _targets(self) -> str:
        """Return the classes with the number of training rows of each, or the form of values."""
        targets = self.train.targets
        if targets.is_floating_point():
            return f"({', '.join(map(str, targets.shape[1:]))}) values, link {self.link.name}"
        counts = targets[targets != self.ignore_index].bincount(minlength=self.outputs).tolist()
        names = (self.pipeline and self.pipeline.classes) or [*map(str, range(self.outputs))]
        shown = [f"{name} ({count})" for name, count in zip(names, counts, strict=True)][:20]
        return f"{self.outputs} classes: {', '.join(shown)}{', ...' if len(counts) > 20 else ''}"

    @property
    def input_shape(self) -> Any:
        """The shape of one row of the inputs, without the batch dimension: a tuple.

        For inputs of several tensors, their shapes in a dictionary or tuple of the same form.
        """
        return shape_of(as_inputs(self.train.inputs))


class TaskSource(Options, ABC, group="task"):
    """The options of a task, such as ``digits`` or ``csv``; makes the `Task`.

    Example:
        >>> from metaloss.data.tables.diabetes import Diabetes
        >>> Diabetes().build(seed=0).metric_name
        'mse'
    """

    @abstractmethod
    def build(self, seed: int) -> Task:
        """Load and split the rows, on the CPU. The same seed gives the same task."""


class TaskDependent(Options, ABC, group="loss"):
    """Options of a loss that take missing values from the task, such as the number of classes.

    Example:
        >>> from metaloss.data.tables.diabetes import Diabetes
        >>> from metaloss.losses.mlp import MLPLossConfig
        >>> MLPLossConfig().for_task(Diabetes().build(seed=0)).class_offsets  # regression: none
        0
    """

    @abstractmethod
    def for_task(self, task: Task) -> Self:
        """Return the complete options; the same ones if nothing is missing."""
