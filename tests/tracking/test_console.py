"""The terminal as a string: what people see, and nothing that they must not."""

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from metaloss.contracts import Logged, LossCurves, Noticed, RunFinished
from metaloss.errors import MetalossError
from metaloss.tracking.console import Console, ConsoleConfig

from .conftest import started

CONTROL = re.compile(r"\x1b|\r|\x08")
SUMMARY = {
    "status": "ok",
    "steps": 30,
    "seconds": 12.34,
    "guard_events": [],
    "metrics": {"valid/error": 0.3, "test/error": 0.31},
    "metrics_at_best_validation": {"valid/error": 0.05, "test/error": 0.00004, "step": 20},
}


class Stage:
    """A console before two pages and a clock that the test moves."""

    def __init__(self, *, terminal=False, width=100, **options):
        self.now = 0.0
        environment = {"TERM": "xterm"}
        self.progress = RichConsole(
            file=io.StringIO(), force_terminal=terminal, width=width, _environ=environment
        )
        self.result = RichConsole(file=io.StringIO(), force_terminal=False, width=width)
        self.console = Console(
            ConsoleConfig(**options),
            progress=self.progress,
            result=self.result,
            get_time=lambda: self.now,
        )

    def log(self, phase, phase_step, seconds=1.0, **numbers):
        self.now += seconds
        named = {name.replace("_", "/", 1): value for name, value in numbers.items()}
        event = Logged(step=phase_step, phase=phase, phase_step=phase_step, numbers=named)
        self.console.handle(event)

    def lines(self):
        return self.progress.file.getvalue().splitlines()

    def frame(self):
        """Return the last picture in the terminal, without its colours."""
        last = re.split(r"\x1b\[\d*A|\x1b\[2K", self.progress.file.getvalue())[-1]
        return re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", last).splitlines()


def test_a_line_has_place_numbers_rate_and_times():
    stage = Stage(seconds=0)
    stage.console.handle(started(Path("runs/a"), totals={"train": 40}))
    stage.log("train", 10, train_loss=0.5)
    stage.log("train", 20, train_loss=0.25, valid_error=0.125, valid_task_loss=9.0, test_error=8.0)
    assert stage.lines() == [
        "digits-online begins: runs/a",
        "train 10/40  train/loss 0.5000  (elapsed 0:00:01, ETA -:--:--)",
        "train 20/40  valid/error 0.1250  train/loss 0.2500"
        "  (10 steps/s, elapsed 0:00:02, ETA 0:00:02)",
    ]


def test_a_line_in_a_pipe_fits_80_columns_with_the_numbers_that_matter_first():
    stage = Stage(seconds=0, width=80)
    stage.console.handle(started(Path("a"), totals={"train": 20_000}))
    stage.log("train", 10_000, train_loss=0.25, meta_task_loss=0.5, valid_error=0.125)
    expected = "train 10000/20000  valid/error 0.1250  meta/task_loss 0.5000  (ETA -:--:--)"
    assert stage.lines()[1:] == [expected]
    wide = Stage(seconds=0, width=20, metrics=["test/error", "test/auroc"])
    wide.console.handle(started(Path("a")))
    wide.log("train", 10, test_error=0.5, test_auroc=0.75)
    assert wide.lines()[1] == "train 10/30  test/error 0.5000  test/auroc 0.7500"


def test_without_a_terminal_there_are_no_control_characters():
    stage = Stage(seconds=0)
    stage.console.handle(started(Path("runs/[bold]x[/bold]")))
    for step in (5, 10):
        stage.log("offline", step, train_loss=0.5)
    stage.console.handle(Noticed(step=10, message="η cut [red]tenfold[/red]", level="error"))
    stage.console.handle(RunFinished(summary=SUMMARY))
    written = stage.progress.file.getvalue() + stage.result.file.getvalue()
    assert not CONTROL.search(written)
    # Nor is anybody's text taken for markup.
    assert "error: step 10: η cut [red]tenfold[/red]\n" in written
    assert "runs/[bold]x[/bold]\n" in written


def test_lines_come_at_most_once_in_so_many_logged_steps():
    stage = Stage(every=3, seconds=0)
    stage.console.handle(started(Path("a"), totals={"train": 80}))
    for step in range(10, 81, 10):
        stage.log("train", step, train_loss=1.0)
    # The last line of a phase is always there.
    assert [line.split()[1] for line in stage.lines()[1:]] == ["30/80", "60/80", "80/80"]


def test_lines_come_at_most_once_in_so_many_seconds():
    stage = Stage(seconds=2.5)
    stage.console.handle(started(Path("a"), totals={"train": 1000}))
    for step in range(10, 91, 10):
        stage.log("train", step, seconds=1.0, train_loss=1.0)
    places = [line.split()[1] for line in stage.lines()[1:]]
    assert places == ["10/1000", "40/1000", "70/1000"]


def test_the_numbers_of_a_phase_stay_until_the_next_phase():
    stage = Stage(seconds=0)
    stage.console.handle(started(Path("a")))
    stage.log("offline", 10, meta_task_loss=3.0)
    stage.log("train", 10, train_loss=1.0, valid_error=0.5)
    stage.log("train", 20, train_loss=2.0)
    assert "meta/task_loss 3.0000" in stage.lines()[1]
    assert "meta/task_loss" not in stage.lines()[2]
    assert "valid/error 0.5000  train/loss 2.0000" in stage.lines()[3]


def test_the_numbers_to_show_can_be_chosen():
    stage = Stage(seconds=0, metrics=["test/error", "no/such"])
    stage.console.handle(started(Path("a")))
    stage.log("train", 10, train_loss=1.0, test_error=0.5)
    assert stage.lines()[1].startswith("train 10/30  test/error 0.5000  (")


def test_a_long_notice_stays_on_one_line():
    stage = Stage(width=30)
    message = "guard: " + "no better than a constant prediction " * 4
    stage.console.handle(Noticed(step=3, message=message.strip()))
    assert stage.lines() == [f"warning: step 3: {message.strip()}"]


@pytest.mark.parametrize("width", [100, 60, 40, 26])
def test_bars_fit_the_terminal_one_line_a_phase(width):
    stage = Stage(terminal=True, width=width)
    stage.console.handle(started(Path("a"), totals={"offline": 2500, "train": 4000}))
    for step in (1000, 2500):
        stage.log("offline", step, train_loss=0.5, meta_task_loss=2.0)
    for step in (1000, 2000):
        stage.log("train", step, seconds=10.0, train_loss=0.5, meta_task_loss=2.0)
    stage.console.close()
    offline, train, numbers, *rest = stage.frame()
    assert not any(rest)
    assert max(map(len, (offline, train, numbers))) <= width
    assert offline.startswith("offline ")
    assert train.startswith("train   ")
    assert "ETA 0:00:20" in train
    assert numbers.startswith("  meta/task_loss 2.0000")
    if width >= 60:
        assert "2000/4000" in train
        assert " 100 steps/s" in train
    if width == 100:
        assert "0:00:20  ETA" in train
        assert "train/loss 0.5000" in numbers


def test_notices_are_printed_above_the_bars_and_the_cursor_comes_back():
    stage = Stage(terminal=True)
    stage.console.handle(started(Path("a")))
    stage.console.handle(Noticed(step=5, message="be careful"))
    stage.log("offline", 5, train_loss=0.5)
    stage.console.close()
    written = stage.progress.file.getvalue()
    assert written.index("be careful") < written.rindex("offline")
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
    assert not any("be careful" in line for line in stage.frame())


def test_a_resumed_run_begins_where_it_was():
    stage = Stage(terminal=True)
    stage.console.handle(
        started(Path("a"), totals={"start": 5, "offline": 10, "train": 30}, resumed_from=27)
    )
    stage.console.close()
    start, offline, train = stage.frame()[:3]
    assert "5/5" in start
    assert "10/10" in offline
    assert "12/30" in train
    assert "steps/s" not in train


def test_the_rate_of_a_resumed_run_counts_only_new_steps():
    stage = Stage(seconds=0)
    stage.console.handle(started(Path("a"), totals={"train": 4000}, resumed_from=2000))
    stage.log("train", 2010, train_loss=1.0)
    stage.log("train", 2020, train_loss=1.0)
    assert stage.lines()[0] == "digits-online goes on: a"
    assert "(10 steps/s, elapsed 0:00:02, ETA 0:03:18)" in stage.lines()[2]


def test_a_phase_that_was_not_announced_is_shown_without_an_end():
    stage = Stage(seconds=0)
    stage.console.handle(started(Path("a"), totals={"train": 30}))
    stage.log("search", 5, best_fitness=0.5)
    assert stage.lines()[1].startswith("search 5  best/fitness 0.5000")


def test_no_color_leaves_bars_without_colours(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    page = RichConsole(file=io.StringIO(), force_terminal=True, width=100)
    console = Console(ConsoleConfig(), progress=page, result=page)
    console.handle(started(Path("a")))
    console.handle(Noticed(step=1, message="yellow otherwise"))
    console.close()
    assert not re.search(r"\x1b\[[\d;]*3\d", page.file.getvalue())
    assert "\x1b[?25h" in page.file.getvalue()


def test_the_table_lines_up_and_has_everything():
    stage = Stage()
    stage.console.handle(started(Path("runs/a")))
    stage.console.handle(RunFinished(summary={**SUMMARY, "guard_events": [{}, {}]}))
    table = [line.rstrip() for line in stage.result.file.getvalue().splitlines()]
    assert table == [
        "metric        final  at best validation",
        "valid/error  0.3000              0.0500",
        "test/error   0.3100            4.00e-05",
        "step             30                  20",
        "status   ok",
        "guard    2 events",
        "seconds  12.3",
        "folder   runs/a",
    ]


def test_a_narrow_terminal_cuts_neither_numbers_nor_the_folder():
    stage = Stage(width=20)
    folder = Path("runs") / ("long-" * 20)
    stage.console.handle(started(folder))
    stage.console.handle(RunFinished(summary=SUMMARY))
    text = stage.result.file.getvalue()
    assert "valid/error  0.3000              0.0500" in text
    assert f"folder   {folder}\n" in text


def test_a_summary_with_little_in_it_is_shown():
    stage = Stage()
    stage.console.handle(started(Path("runs/a")))
    stage.console.handle(RunFinished(summary={"status": "diverged", "metrics": {"test/error": 0}}))
    table = [line.rstrip() for line in stage.result.file.getvalue().splitlines()]
    assert table == [
        "metric      final",
        "test/error      0",
        "status   diverged",
        "folder   runs/a",
    ]


def test_curves_are_not_for_the_console():
    stage = Stage()
    stage.console.handle(LossCurves(step=1, phase="train", grid=(0.0,), curves={"t=0": (1.0,)}))
    stage.console.close()
    assert stage.progress.file.getvalue() == ""


def test_streams_are_separate_and_plain_in_a_pipe(tmp_path):
    program = (
        "from pathlib import Path\n"
        "from metaloss.contracts import *\n"
        "from metaloss.tracking.console import *\n"
        "console = Console(ConsoleConfig())\n"
        "console.handle(RunStarted(config={}, folder=Path('a'), name='a', totals={}, goal='min'))\n"
        "console.handle(RunFinished(summary={'status': 'ok', 'metrics': {'test/error': 0.5}}))\n"
    )
    # FORCE_COLOR makes Rich take anything for a terminal; a pipe must stay plain.
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"FORCE_COLOR": "1", "PYTHONUTF8": "1"},
        cwd=tmp_path,
        timeout=60,
        check=True,
    )
    assert done.stderr == "a begins: a\n"
    assert done.stdout.splitlines()[1].split() == ["test/error", "0.5000"]
    assert not CONTROL.search(done.stdout + done.stderr)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every=0: expected a whole number, at least 1"),
        ({"seconds": -1.0}, "seconds=-1.0: expected a number, at least 0"),
        ({"seconds": float("nan")}, "seconds=nan: expected a number, at least 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(MetalossError, match=re.escape(message)):
        ConsoleConfig(**options)
