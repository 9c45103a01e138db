"""What a task is: rows, a task loss, a metric, and the link."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from metaloss.types import Batch, Link


@dataclass(frozen=True, kw_only=True)
class Task:
    """Data splits, a task loss, a metric, and the link.

    Attributes:
        name: Shown in tables; part of a run's default folder name.
        train: All training rows, the possibly wrong labels included.
        valid: Validation rows, disjoint from ``train``: the meta-batches come from here.
        test: Test rows: only ever evaluated.
        link: What turns the model's raw outputs into predictions.
        outputs: C, the number of outputs that a model for this task must have.
        task_loss: ``(raw outputs (B, C, *), targets) -> scalar``; what φ is judged by.
        metric_name: For example ``"error"`` or ``"mse"``.
        metric: ``(raw outputs, targets) -> scalar``, a mean over rows.
        goal: ``"min"`` or ``"max"``: which metric values are better.
        constant_loss: Task loss of the best constant prediction on the training targets; a model
            above it has learned nothing.
        description: One line for people.
        augment: ``(inputs (B, ...), key) -> inputs (B, ...)``, applied to batches of training
            rows, never to validation or test rows that are evaluated or that judge. Pure: a
            function of the inputs and of the key, a 0-d int64 tensor on their device, alone.
        ignore_index: The class index of targets that do not count, in the task loss, the metric
            and the learned loss.
        stream: Keep the inputs in the CPU's memory and move them batch by batch. None: where
            they would take more than half of the device's free memory.
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

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row of the inputs, without the batch dimension."""
        return tuple(self.train.inputs.shape[1:])


class TaskSource(ABC):
    """Where a task's rows come from, such as ``digits``, ``cifar10`` or ``csv``."""

    @abstractmethod
    def build(self, seed: int) -> Task:
        """Load and split the rows, on the CPU; the same seed gives the same task."""


class TaskDependent(ABC):
    """Options of a loss that take from the task what is not given, such as how many classes."""

    @abstractmethod
    def for_task(self, task: Task) -> Self:
        """Return the options, complete; unchanged where everything was given."""
