"""The progress of a study: bars in a terminal, lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column

from metaloss.core.storage.run_folder import last_row, read_summary
from metaloss.study.launch.jobs import Job, State


class Display:
    """A bar for finished runs, and one for each current run, from their journals.

    Args:
        jobs: Every run of the study.
        console: The console for output; bars only in a terminal.
        what: The name of these runs in messages.
        split: The rows of the shown metrics, ``"test"`` or ``"valid"``; ``"held-out"``: trusted
            rows in the place of the test rows.
    """

    def __init__(
        self, jobs: Sequence[Job], console: Console, *, what: str = "runs", split: str = "test"
    ) -> None:
        self._console, self._what, self._split = console, what, split
        self._jobs = jobs
        self._total = len(jobs)
        self._finished = sum(job.state is State.finished for job in jobs)
        self._lock = threading.Lock()
        self._running: dict[Path, tuple[Job, TaskID, float]] = {}
        self._width = max((len(_label(job)) for job in jobs), default=0)
        self._bars = Progress(
            *_columns(console.width - self._width),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._all = self._bars.add_task(
            what.ljust(self._width), total=self._total, completed=self._finished, numbers=""
        )

    def __enter__(self) -> Display:
        if self._finished:
            self._console.print(
                f"{self._finished} of {self._total} {self._what} are finished already"
            )
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()
        if isinstance(error, KeyboardInterrupt):
            # Some may have ended since the last update.
            self._finished = sum(read_summary(job.folder) is not None for job in self._jobs)
            self._console.print(
                f"stopped: {self._finished} of {self._total} {self._what} are finished; "
                "the same command continues"
            )

    def started(self, job: Job) -> None:
        """Add a bar."""
        with self._lock:
            label = _label(job).ljust(self._width)
            # The number of steps is known after the first row.
            bar = self._bars.add_task(label, total=None, numbers="")
            self._running[job.folder] = job, bar, time.monotonic()

    def ended(self, job: Job, message: str) -> None:
        """Remove the bar; print the run's result."""
        with self._lock:
            _, bar, began = self._running.pop(job.folder)
            self._bars.remove_task(bar)
        if not message:
            self._finished += 1
        self._bars.update(self._all, completed=self._finished)
        count = f"[{self._finished:>{len(str(self._total))}}/{self._total}]"
        seconds = time.monotonic() - began
        result = f"failed: {message}" if message else _result(job, self._split)
        self._console.print(
            f"{count} {_label(job).ljust(self._width)}  {result}  ({seconds:.0f} s)",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def look(self) -> None:
        """Update the bars."""
        if self._bars.disable:
            return
        with self._lock:
            running = list(self._running.values())
        for job, bar, _ in running:
            row = last_row(job.folder)
            if row is not None:
                shown = {n: v for n, v in row.numbers.items() if n.startswith("train/")}
                shown |= _named(row.numbers, self._split)
                numbers = "  ".join(f"{name} {value:.3g}" for name, value in shown.items())
                self._bars.update(
                    bar,
                    completed=row.step,
                    total=job.steps(row),
                    numbers=f"{row.phase}  {numbers}",
                )


def _columns(room: int) -> list[ProgressColumn]:
    """Return the columns that fit beside the names: a bar and counts, then time, then numbers."""
    whole = Column(no_wrap=True)
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}", table_column=whole),
        BarColumn(bar_width=max(2, min(28, room - 24))),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
    ]
    if room >= 36:
        columns.append(TimeElapsedColumn())
    if room >= 80:
        columns.append(TextColumn("[dim]{task.fields[numbers]}"))
    return columns


def _label(job: Job) -> str:
    return f"{job.row}, seed {job.seed}"


def _result(job: Job, split: str) -> str:
    summary = read_summary(job.folder) or {}
    numbers = [
        f"{name} {value:.4g}"
        for name, value in _named(summary.get("metrics", {}), split).items()
        if isinstance(value, int | float)
    ]
    return "  ".join([*(["diverged"] if summary.get("status") == "diverged" else []), *numbers])


def _named(numbers: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Return the numbers of a split; those of held-out rows are stored as those of test rows."""
    stored = "test/" if split == "held-out" else f"{split}/"
    return {
        f"{split}/{name.removeprefix(stored)}": value
        for name, value in numbers.items()
        if name.startswith(stored)
    }
