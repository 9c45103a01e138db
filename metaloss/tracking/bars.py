"""Progress bars, one for each phase, with the current numbers below them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
)
from rich.text import Text

from metaloss.tracking.numbers import clock


class Bars(Progress):
    """Rich's progress bars with columns that fit the terminal.

    Rate, elapsed and remaining time of each phase are computed even if nothing is drawn.
    ``get_time`` is a clock in seconds.
    """

    def __init__(self, console: Console, get_time: Callable[[], float]) -> None:
        self.below = ""
        super().__init__(
            *columns(console.width),
            console=console,
            get_time=get_time,
            refresh_per_second=4,
            # What a model prints must not disturb the bars; on a file it stays as it is.
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the bars and the line below them."""
        yield self.make_tasks_table(self.tasks)
        if self.below:
            yield Text(f"  {self.below}", style="dim", no_wrap=True, overflow="ellipsis")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(rate(task), style="progress.data.speed", justify="right")


class _Times(ProgressColumn):
    """Elapsed and remaining time; only the remaining time if ``short``."""

    def __init__(self, short: bool) -> None:
        self._short = short
        super().__init__()

    def render(self, task: Task) -> Text:
        left = Text(f"ETA {remaining(task)}", style="progress.remaining")
        if self._short:
            return left
        spent = Text(clock(elapsed(task)), style="progress.elapsed")
        return Text.assemble(spent, "  ", left)


def columns(width: int) -> list[ProgressColumn]:
    """Return the columns for a terminal of ``width`` ≥ 24 characters, so that no line wraps."""
    name = TextColumn("{task.description}")
    if width >= 76:
        return [name, BarColumn(bar_width=20), MofNCompleteColumn(), _Rate(), _Times(short=False)]
    if width >= 54:
        return [name, BarColumn(bar_width=8), MofNCompleteColumn(), _Rate(), _Times(short=True)]
    return [name, TaskProgressColumn(), _Times(short=True)]


def rate(task: Task) -> str:
    """Return the steps per second of the last half minute as text; empty if unknown."""
    speed = task.finished_speed or task.speed
    if not speed:
        return ""
    return f"{speed:.3g} steps/s" if speed < 1000 else f"{speed:.0f} steps/s"


def elapsed(task: Task) -> float | None:
    """Return the seconds since a phase began; None if it has not begun."""
    return task.finished_time if task.finished else task.elapsed


def remaining(task: Task) -> str:
    """Return the remaining time of a phase as text."""
    return clock(task.time_remaining if task.started else None)
