"""The tracker ``console``: progress and results in a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from rich.console import Console as RichConsole
from rich.progress import TaskID
from rich.text import Text

from metaloss.contracts import Event, Logged, Noticed, RunFinished, RunStarted, Tracker
from metaloss.errors import check_range
from metaloss.options import Options
from metaloss.tracking.bars import Bars, elapsed, rate, remaining
from metaloss.tracking.numbers import choose, clock, fitted, line
from metaloss.tracking.quiet_console import QuietConsole
from metaloss.tracking.result_table import print_result

_STYLES = {"info": "", "warning": "yellow", "error": "bold red"}


@dataclass(frozen=True, kw_only=True)
class ConsoleConfig(Options, group="tracker.console"):
    """Options of `Console`.

    Raises:
        MetalossError: If a value is out of its range.
    """

    metrics: list[str] = field(
        default_factory=list,
        metadata={"help": "numbers to show; []: validation metric, task loss, learned loss"},
    )
    every: int = field(
        default=1, metadata={"help": "without a terminal: logged steps from one line to the next"}
    )
    seconds: float = field(
        default=2.0, metadata={"help": "without a terminal: least seconds between two lines"}
    )

    def __post_init__(self) -> None:
        option = "tracker.console."
        check_range(f"{option}every", self.every, self.every >= 1, "a whole number, at least 1")
        check_range(f"{option}seconds", self.seconds, self.seconds >= 0, "a number, at least 0")


class Console(Tracker):
    """Progress bars in a terminal, plain lines elsewhere, and a table at the end.

    Progress and messages go to standard error and the table to standard output. So
    ``metaloss train > result.txt`` stores the result and still shows the progress. If standard
    error is not a terminal, lines are written instead of bars: at most one for every ``every``
    logged steps and one every ``seconds``, and the last one of each phase. What does not fit into
    the width (80 characters in a pipe, or ``COLUMNS``) is left out, but for chosen ``metrics``.
    ``NO_COLOR`` is respected.

    Args:
        config: The options.
        progress: Where progress goes; None: standard error.
        result: Where the table goes; None: standard output.
        get_time: A clock in seconds.

    Example:
        >>> from metaloss.contracts import Logged, RunStarted
        >>> import io
        >>> page = RichConsole(file=io.StringIO())
        >>> console = Console(ConsoleConfig(), progress=page, result=page, get_time=lambda: 0.0)
        >>> started = dict(config={}, folder=Path("runs/a"), name="a", goal="min")
        >>> console.handle(RunStarted(totals={"train": 100}, **started))
        >>> numbers = {"train/loss": 0.5}
        >>> console.handle(Logged(step=50, phase="train", phase_step=50, numbers=numbers))
        >>> print(page.file.getvalue().splitlines()[-1])
        train 50/100  train/loss 0.5000  (elapsed 0:00:00, ETA -:--:--)
    """

    Config = ConsoleConfig
    once = True

    def __init__(
        self,
        config: ConsoleConfig,
        *,
        progress: RichConsole | None = None,
        result: RichConsole | None = None,
        get_time: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._progress = progress or _console(sys.stderr)
        self._result = result or _console(sys.stdout)
        self._get_time = get_time
        self._live = self._progress.is_terminal and not self._progress.is_dumb_terminal
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._phase = ""
        self._latest: dict[str, float] = {}
        self._folder = Path()
        self._logged, self._written = 0, float("-inf")

    def handle(self, event: Event) -> None:
        """Show one event. Loss curves are not shown."""
        if isinstance(event, RunStarted):
            self._start(event)
        elif isinstance(event, Logged):
            self._log(event)
        elif isinstance(event, Noticed):
            self._notice(event)
        elif isinstance(event, RunFinished):
            self.close()
            print_result(self._result, event.summary, self._folder)

    def close(self) -> None:
        """Stop the bars; they stay visible."""
        if self._bars is not None and self._live:
            self._bars.stop()

    def _start(self, event: RunStarted) -> None:
        self._folder = event.folder
        begins = "goes on" if event.resumed_from is not None else "begins"
        self._print(Text(f"{event.name} {begins}: {event.folder}"))
        if event.task and event.resumed_from is None:
            self._print(Text(event.task))
        self._bars = Bars(self._progress, self._get_time)
        done = event.resumed_from or 0
        width = max((len(name) for name in event.totals), default=0)
        for name, total in event.totals.items():
            # The step counts through the phases in their order.
            here = min(done, total)
            done -= here
            self._tasks[name] = self._bars.add_task(
                name.ljust(width), total=total, completed=here, start=False
            )
        self._begin_next()
        if self._live:
            self._bars.start()

    def _log(self, event: Logged) -> None:
        if self._bars is None:
            return
        if event.phase != self._phase:
            self._phase, self._latest = event.phase, {}
        self._latest.update(event.numbers)
        task = self._task(event.phase)
        if not self._bars.tasks[task].started:
            self._bars.start_task(task)
        self._bars.update(task, completed=event.phase_step)
        self._bars.below = line(choose(self._latest, self._config.metrics))
        at_end = event.phase_step >= (self._bars.tasks[task].total or 0)
        if at_end:
            self._begin_next()
        self._logged += 1
        if not self._live and (at_end or self._due()):
            self._write(event)

    def _task(self, phase: str) -> TaskID:
        """Return the bar of a phase. One that is not in the totals has no end."""
        assert self._bars is not None
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=None, start=False)
        return self._tasks[phase]

    def _begin_next(self) -> None:
        """Start the time of the first phase that is not finished."""
        assert self._bars is not None
        for task in self._bars.tasks:
            if task.total is None or task.completed < task.total:
                if not task.started:
                    self._bars.start_task(task.id)
                return

    def _due(self) -> bool:
        passed = self._get_time() - self._written
        return self._logged % self._config.every == 0 and passed >= self._config.seconds

    def _write(self, event: Logged) -> None:
        assert self._bars is not None
        self._written = self._get_time()
        task = self._bars.tasks[self._task(event.phase)]
        place = str(event.phase_step) + (f"/{task.total:.0f}" if task.total is not None else "")
        shown = choose(self._latest, self._config.metrics)
        numbers = [line({name: value}) for name, value in shown.items()]
        begins = f"{event.phase} {place}"
        if self._config.metrics:  # what was asked for is shown at any width
            begins, numbers = "  ".join((begins, *numbers)), []
        times = [f"ETA {remaining(task)}", f"elapsed {clock(elapsed(task))}", rate(task)]
        width = self._progress.width
        self._print(Text(fitted(begins, numbers, [time for time in times if time], width)))

    def _notice(self, event: Noticed) -> None:
        style = _STYLES.get(event.level, "")
        self._print(Text.assemble((event.level, style), f": step {event.step}: {event.message}"))

    def _print(self, text: Text) -> None:
        # One line for each event: wrapped lines cannot be searched.
        self._progress.print(text, soft_wrap=True, highlight=False)


def _console(stream: TextIO) -> RichConsole:
    # With FORCE_COLOR, Rich treats a file as a terminal, and bars would fill it with control
    # characters.
    return QuietConsole(file=stream, force_terminal=stream is not None and stream.isatty())
