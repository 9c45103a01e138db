"""The contract of a tracker, and the events of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """The first event.

    Attributes:
        config: The run's configuration, as in ``config.yaml``.
        folder: The run's folder.
        name: The run's name.
        totals: The number of steps of each phase, by the phase's name.
        goal: Whether lower (``"min"``) or higher (``"max"``) values of the metric are better.
        resumed_from: The step that a resumed run goes on from, else None.
        group: The common name of runs that were started together; None for a single run.
        task: What was read, in a few lines: rows, columns, classes, meta-batches.
        link: The task's link, such as ``"softmax"``.
    """

    config: Mapping[str, Any]
    folder: Path
    name: str
    totals: Mapping[str, int]
    goal: str
    resumed_from: int | None = None
    group: str | None = None
    task: str = ""
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class Logged:
    """The numbers of one logged step.

    Attributes:
        step: The step since the start of the run. It grows through all phases.
        phase: ``"start"``, ``"offline"`` or ``"train"``.
        phase_step: The step within the phase.
        numbers: By name, such as ``train/loss``, ``train/task_loss``, ``meta/task_loss``,
            ``valid/error``, ``test/error``. The page *The command line* explains all of them.
    """

    step: int
    phase: str
    phase_step: int
    numbers: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class LossCurves:
    """The learned loss ℓ(t, p) over a grid of predictions p, for each target value t.

    Attributes:
        step: The step since the start of the run.
        phase: ``"offline"`` or ``"train"``.
        grid: (G,) predictions.
        curves: (G,) values by the target's label, such as ``"t=1"``.
    """

    step: int
    phase: str
    grid: tuple[float, ...]
    curves: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that grows, such as all candidates of a search.

    Attributes:
        step: The step since the start of the run.
        name: The name of the table.
        columns: The names of its columns.
        rows: All rows so far, each with a value for every column.
    """

    step: int
    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Noticed:
    """A message to show, such as an event of the guard, a fallback or a warning.

    Attributes:
        step: The step since the start of the run.
        message: One line.
        level: ``"info"``, ``"warning"`` or ``"error"``.
    """

    step: int
    message: str
    level: str = "warning"


@dataclass(frozen=True, kw_only=True)
class RunFinished:
    """The last event.

    Attributes:
        summary: The content of ``summary.json``.
        files: The files that the run wrote, by role (``loss``, ``model``, ...).
    """

    summary: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)


Event = RunStarted | Logged | LossCurves | Table | Noticed | RunFinished
"""What a tracker receives: one of these six."""


class Tracker(ABC):
    """Receives the events of a run.

    A tracker that raises an error is disconnected with one warning; the run goes on.

    Attributes:
        once: Whether it receives only the first of several runs that are trained together. This is
            for trackers that a person watches.

    Example:
        >>> class Losses(Tracker):
        ...     values = []
        ...     def handle(self, event):
        ...         if isinstance(event, Logged):
        ...             self.values.append(event.numbers["train/loss"])
        >>> tracker = Losses()
        >>> tracker.handle(Logged(step=1, phase="train", phase_step=1, numbers={"train/loss": 0.5}))
        >>> tracker.values
        [0.5]
    """

    once: bool = False

    @abstractmethod
    def handle(self, event: Event) -> None:
        """Receive one event. It holds numbers, tuples and paths, no tensors."""

    def close(self) -> None:  # noqa: B027 - most trackers have nothing to release
        """Release files and connections. Called once, also after an error or Ctrl-C."""
