"""Flags that several commands share, and what they print alike."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        help="A Python file with parts of your own; may be repeated.",
        show_default=False,
    ),
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="What to change, such as task=digits schedule=online inner.lr=0.1.",
        show_default=False,
    ),
]

# Seconds that a process leaves to another for saying why both end: where it knows that the other
# will, and where it believes so.
_LINGER, _BELIEVED = 1.0, 5.0

# Exit statuses.
DONE, FAILED, BAD_REQUEST, DIVERGED, INTERRUPTED = 0, 1, 2, 3, 130


def heard(reason: BaseException | None = None) -> bool:
    """Return whether this process is the one that people hear.

    Of many processes of one run the first is; of an error, the one that was not told of it by
    another (``quiet``).
    """
    if reason is None:
        return os.environ.get("RANK", "0") == "0"
    quiet = getattr(reason, "quiet", None)
    # Before they know of each other, the first of a machine meets the same error as the others.
    if quiet is False or (quiet is None and os.environ.get("LOCAL_RANK", "0") == "0"):
        return True
    # A launcher ends all processes as soon as one has: the one that speaks must not be the second.
    # This one is ended while it waits; or else nobody has said it.
    time.sleep(_BELIEVED if quiet is None else _LINGER)
    return quiet is None


def complain(message: str) -> None:
    """Print an error as one line on standard error."""
    with suppress(OSError):  # closed, or on a full disk: the exit status still says it
        print(f"metaloss: error: {' '.join(message.split())}", file=sys.stderr)


def interrupted(reason: BaseException) -> int:
    """Say that Ctrl-C was heard, with what the trainer said of it; return the exit status."""
    if heard(reason):
        with suppress(OSError):
            print(": ".join(["metaloss: interrupted", *map(str, reason.args)]), file=sys.stderr)
    return INTERRUPTED


def report_all(runs: Iterable[Any]) -> int:
    """Print how each run ended, a line each; return the worst exit status."""
    return max(report(run.folder, run.summary.as_dict()) for run in runs)


def report(folder: Path, summary: Mapping[str, Any]) -> int:
    """Print how a run ended on one line; return the exit status it stands for."""
    numbers = [f"{name}={value:.4g}" for name, value in summary.get("metrics", {}).items()]
    if summary.get("learned_nothing"):
        numbers.append("no better than the best constant prediction")
    if heard():
        print(", ".join([f"{folder}: {summary['status']}", *numbers]))
    return DIVERGED if summary["status"] == "diverged" else DONE
