"""Flags, messages and exit statuses that several commands share."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin", metavar="FILE.py", help="A Python file with parts of your own. May be repeated."
    ),
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Settings, such as task=digits schedule=online inner.lr=0.1."
    ),
]

# Seconds that a process waits for another one to print the reason why both end: if it is known that
# the other one prints it, and if it is only likely.
_KNOWN, _LIKELY = 1.0, 5.0

# Exit statuses.
DONE, FAILED, BAD_REQUEST, DIVERGED, INTERRUPTED = 0, 1, 2, 3, 130


class _PlainFlags:
    """Leaves out the ``<bool>`` that Typer writes beside a flag, as if the flag took a value."""

    def get_params(self, ctx: Any) -> Any:
        parameters = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if getattr(parameter, "is_flag", False) and parameter.metavar is None:
                parameter.metavar = ""
        return parameters


class Command(_PlainFlags, TyperCommand):
    """A subcommand."""


class Group(_PlainFlags, TyperGroup):
    """The command itself."""


def heard(reason: BaseException | None = None) -> bool:
    """Return whether this process prints messages.

    Of the processes of one run, only the first does. An error is printed by the process where it
    occurred; in the others, the error's attribute ``quiet`` is true.
    """
    if reason is None:
        return os.environ.get("RANK", "0") == "0"
    quiet = getattr(reason, "quiet", None)
    # Without the attribute, the processes could not exchange the error: the first one here prints.
    if quiet is False or (quiet is None and os.environ.get("LOCAL_RANK", "0") == "0"):
        return True
    # A launcher ends all processes when one ends, so wait until the other one has printed.
    # If this one is still running afterwards, nothing was printed.
    time.sleep(_LIKELY if quiet is None else _KNOWN)
    return quiet is None


def complain(message: str) -> None:
    """Print an error as one line on standard error."""
    with suppress(OSError):  # closed, or on a full disk; the exit status says it too
        print(f"metaloss: error: {' '.join(message.split())}", file=sys.stderr)


def interrupted(reason: BaseException) -> int:
    """Print that the run was interrupted, with the trainer's message; return the exit status."""
    if heard(reason):
        with suppress(OSError):
            print(": ".join(["metaloss: interrupted", *map(str, reason.args)]), file=sys.stderr)
    return INTERRUPTED


def report_all(runs: Iterable[Any]) -> int:
    """Print one line for each run; return the largest exit status."""
    return max(report(run.folder, run.summary.as_dict()) for run in runs)


def report(folder: Path, summary: Mapping[str, Any]) -> int:
    """Print one line with the status and metrics of a run; return the exit status."""
    numbers = [f"{name}={value:.4g}" for name, value in summary.get("metrics", {}).items()]
    if summary.get("learned_nothing"):
        numbers.append("no better than the best constant prediction")
    if heard():
        with suppress(BrokenPipeError):  # nobody reads it; the exit status counts all the same
            print(", ".join([f"{folder}: {summary['status']}", *numbers]))
    return DIVERGED if summary["status"] == "diverged" else DONE
