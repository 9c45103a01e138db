"""The contract of a tracker: it accepts all events and changes no global state."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from metaloss.contracts import (
    Event,
    Logged,
    LossCurves,
    Noticed,
    RunFinished,
    RunStarted,
)
from metaloss.testing.base import Checks, nothing_changes

# Environment variables that keep trackers from contacting a service during a check.
OFFLINE = {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}


class TrackerChecks(Checks):
    """Checks of a tracker; ``make`` returns it.

    Example:
        >>> from metaloss.contracts import Tracker
        >>> class TestMine(TrackerChecks):
        ...     def make(self):
        ...         class Deaf(Tracker):
        ...             def handle(self, event):
        ...                 pass
        ...         return Deaf()
        >>> TestMine().test_every_event_is_taken_in_order()
    """

    def test_every_event_is_taken_in_order(self) -> None:
        """A run of three phases, with NaN and infinities; ``close`` may be called twice."""
        with _running() as folder, nothing_changes("the tracker"):
            tracker = self.made()
            for event in events(folder):
                tracker.handle(event)
            tracker.close()
            tracker.close()

    def test_a_resumed_run_is_taken(self) -> None:
        """The events of a resumed run are accepted."""
        with _running() as folder:
            tracker = self.made()
            for event in events(folder, resumed_from=20):
                tracker.handle(event)
            tracker.close()

    def test_a_run_that_breaks_off_is_closed(self) -> None:
        """``close`` works at any time, as after Ctrl-C, when there is no last event."""
        with _running() as folder:
            self.made().close()
            for count in (1, 3):
                tracker = self.made()
                for event in events(folder)[:count]:
                    tracker.handle(event)
                tracker.close()


def events(folder: Path, *, resumed_from: int | None = None) -> list[Event]:
    """Return the events of a small run with its files in ``folder``."""
    first = resumed_from or 0
    weights = folder / "loss.safetensors"
    weights.write_bytes(b"\0" * 16)
    numbers = {"train/loss": 0.5, "train/task_loss": 1.5, "rate/steps_per_second": 100.0}
    grid, curve = (0.0, 0.5, 1.0), (2.0, 0.7, 0.0)
    return [
        RunStarted(
            config={"task": {"name": "digits"}, "steps": 40, "seed": 0, "output": None},
            folder=folder,
            name="digits-online",
            totals={"start": 10, "offline": 10, "train": 20},
            goal="min",
            resumed_from=resumed_from,
        ),
        Logged(step=first + 10, phase="start", phase_step=10, numbers={"start/misfit": 0.1}),
        Logged(step=first + 20, phase="offline", phase_step=10, numbers=numbers),
        LossCurves(
            step=first + 20, phase="offline", grid=grid, curves={"t=0": curve[::-1], "t=1": curve}
        ),
        Logged(step=first + 30, phase="train", phase_step=10, numbers={**numbers, "test/error": 1}),
        Noticed(step=first + 30, message="the guard restored a snapshot"),
        Logged(step=first + 40, phase="train", phase_step=20, numbers={"train/loss": math.nan}),
        LossCurves(
            step=first + 40, phase="train", grid=grid, curves={"t=0": curve, "t=1": (math.inf,) * 3}
        ),
        RunFinished(
            summary={"status": "ok", "goal": "min", "metrics": {"test/error": 0.1}},
            files={"loss": weights},
        ),
    ]


@contextmanager
def _running() -> Iterator[Path]:
    with TemporaryDirectory() as folder, patch.dict("os.environ", OFFLINE):
        yield Path(folder)
