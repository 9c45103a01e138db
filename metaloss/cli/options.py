"""Flags that several commands share, and what they print alike."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        help="Import your own file with registered parts; may be repeated.",
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

# Exit statuses.
DONE, FAILED, BAD_REQUEST, DIVERGED, INTERRUPTED = 0, 1, 2, 3, 130


def complain(message: str) -> None:
    """Print an error as one line on standard error."""
    print(f"metaloss: error: {' '.join(message.split())}", file=sys.stderr)


def interrupted(reason: BaseException) -> int:
    """Say that Ctrl-C was heard, with what the trainer said of it; return the exit status."""
    print(": ".join(["metaloss: interrupted", *map(str, reason.args)]), file=sys.stderr)
    return INTERRUPTED


def report_all(runs: Iterable[Any]) -> int:
    """Print how each run ended, a line each; return the worst exit status."""
    return max(report(run) for run in runs)


def report(run: Any) -> int:
    """Print how a run ended on one line; return the exit status it stands for."""
    summary = run.summary
    numbers = [f"{name}={value:.4g}" for name, value in summary.get("metrics", {}).items()]
    print(", ".join([f"{run.folder}: {summary['status']}", *numbers]))
    return DIVERGED if summary["status"] == "diverged" else DONE
