"""The `metaloss` command: its subcommands, errors and exit statuses."""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import typer

from metaloss.cli.check import check
from metaloss.cli.compare import advise, compare
from metaloss.cli.evaluate import evaluate
from metaloss.cli.export import export
from metaloss.cli.list import list_parts
from metaloss.cli.options import (
    BAD_REQUEST,
    DONE,
    Command,
    Group,
    complain,
    heard,
    interrupted,
)
from metaloss.cli.plot import plot, report
from metaloss.cli.predict import predict
from metaloss.cli.suspects import suspects
from metaloss.cli.train import train
from metaloss.core.training.interrupt import endings_as_ctrl_c
from metaloss.errors import MetalossError

app = typer.Typer(
    name="metaloss",
    cls=Group,
    help="Learn the loss function itself, online or offline.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train", cls=Command)(train)
app.command("compare", cls=Command)(compare)
app.command("advise", cls=Command)(advise)
app.command("predict", cls=Command)(predict)
app.command("evaluate", cls=Command)(evaluate)
app.command("suspects", cls=Command)(suspects)
app.command("plot", cls=Command)(plot)
app.command("report", cls=Command)(report)
app.command("list", cls=Command)(list_parts)
app.command("export", cls=Command)(export)
app.command("check", cls=Command)(check)

# Typer does not export the base class of its usage errors.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


@app.callback(invoke_without_command=True)
def _without_command(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version."),
) -> None:
    if version:
        from metaloss import __version__

        print(f"metaloss {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status.

    Args:
        arguments: The words after ``metaloss``; those of this process if None.

    Returns:
        0: finished. 2: a bad request, or a file that cannot be written, with one line on standard
        error. 3: a run diverged. 130: Ctrl-C or another signal to end.
    """
    with endings_as_ctrl_c():
        status = _said(lambda: app(args=arguments, prog_name="metaloss", standalone_mode=False))
        # Buffered output may fail to be written: a full disk, a closed pipe.
        flushed = _said(sys.stdout.flush)
    return status or flushed


def _said(call: Callable[[], Any]) -> int:
    """Call a function, print an error as one line, and return the exit status."""
    try:
        status = call()
    except MetalossError as error:
        _show_where()
        if heard(error):
            complain(str(error))
        return error.exit_status
    except (KeyboardInterrupt, typer.Abort) as reason:
        return interrupted(reason)
    except _UsageError as error:
        if heard(error):
            complain(_usage(error))
        return BAD_REQUEST
    except (BrokenPipeError, SystemExit) as error:
        # The reader of the pipe has ended, as in `metaloss list | head`. Click makes it exit 1.
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        _leave_output()
        return DONE
    except OSError as error:
        # A full disk, a read-only folder, a name that is too long.
        _show_where()
        complain(_system(error))
        return BAD_REQUEST
    return status if isinstance(status, int) else DONE


def _system(error: OSError) -> str:
    """Return the system's error and the file. Without a file name, it was standard output."""
    what = error.strerror or str(error) or type(error).__name__
    if error.filename is not None:
        return f"{error.filename}: {what}"
    _leave_output()
    return f"standard output cannot be written: {what}"


def _leave_output() -> None:
    """Discard all further standard output. Otherwise Python would fail again when it exits."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_where() -> None:
    """Print the traceback of the current error if ``METALOSS_DEBUG`` is set."""
    if os.environ.get("METALOSS_DEBUG", "0") not in ("", "0"):
        traceback.print_exc()


def _usage(error: Exception) -> str:
    """Return the message of a usage error, with all allowed flags if one is unknown."""
    context, got = getattr(error, "ctx", None), getattr(error, "option_name", None)
    if got is None or context is None:
        return error.format_message()  # type: ignore[attr-defined]
    known = sorted(
        flag
        for parameter in context.command.get_params(context)
        for flag in parameter.opts
        if flag.startswith("--")
    )
    # Compared without dashes, which all flags have in common.
    close = difflib.get_close_matches(got.strip("-"), [flag.strip("-") for flag in known], n=1)
    hint = f"did you mean '--{close[0]}'? " if close else ""
    keys = "; keys are written KEY=VALUE, without dashes" if context.info_name == "train" else ""
    return f"unknown flag {got!r}: {hint}(allowed: {', '.join(known)}{keys})"
