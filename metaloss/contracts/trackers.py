"""What a run tells those who follow it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """The first event. ``totals``: the number of steps of each phase, by phase name.

    ``group``: what runs that were started together have in common, None for a run alone.
    """

    config: Mapping[str, Any]
    folder: Path
    name: str
    totals: Mapping[str, int]
    goal: str
    resumed_from: int | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Logged:
    """Numbers of one logged step; ``step`` only ever grows, through all phases.

    ``numbers`` by name, such as ``train/loss``, ``train/task_loss``, ``meta/task_loss``,
    ``valid/error``, ``test/error``, ``rate/steps_per_second``.
    """

    step: int
    phase: str
    phase_step: int
    numbers: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class LossCurves:
    """The learned loss as people see it: ℓ(t, p) for each target value over a grid of p.

    ``grid`` (G,) predictions; ``curves`` maps a target's label such as ``"t=1"`` to (G,) values.
    """

    step: int
    phase: str
    grid: tuple[float, ...]
    curves: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under names, such as every candidate of a search; it grows, and is sent whole."""

    step: int
    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Noticed:
    """Something people should know: a guard event, a fallback, a warning."""

    step: int
    message: str
    level: str = "warning"


@dataclass(frozen=True, kw_only=True)
class RunFinished:
    """The last event. ``files``: what the run wrote, by role (``loss``, ``model``, ...)."""

    summary: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)


Event = RunStarted | Logged | LossCurves | Table | Noticed | RunFinished


class Tracker(ABC):
    """Listens to a run. May fail without hurting it: it is then disconnected, said once.

    Attributes:
        once: Of many runs trained together only the first is listened to: for what people watch.
    """

    once: bool = False

    @abstractmethod
    def handle(self, event: Event) -> None:
        """Take one event: plain numbers, small tuples, paths. Never a tensor."""

    def close(self) -> None:  # noqa: B027 - most trackers hold nothing to release
        """Release what is held; called once, also after a failure or Ctrl-C."""
