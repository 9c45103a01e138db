"""The `metaloss` command: wiring only, one file a command."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence

import typer

from metaloss.cli.check import check
from metaloss.cli.compare import compare
from metaloss.cli.export import export
from metaloss.cli.list import list_parts
from metaloss.cli.options import BAD_REQUEST, complain, heard, interrupted
from metaloss.cli.plot import plot
from metaloss.cli.train import train
from metaloss.errors import MetalossError

app = typer.Typer(
    name="metaloss",
    help="Learn the loss function itself, online or offline.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train)
app.command("compare")(compare)
app.command("plot")(plot)
app.command("list")(list_parts)
app.command("export")(export)
app.command("check")(check)

# Typer does not export the class that its usage errors share, and has moved it before.
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
        0 finished, 2 bad request (told in one line on standard error), 3 diverged, 130 Ctrl-C.
    """
    try:
        status = app(args=arguments, prog_name="metaloss", standalone_mode=False)
    except MetalossError as error:
        if heard(error):
            complain(str(error))
        return error.exit_status
    except (KeyboardInterrupt, typer.Abort) as reason:
        return interrupted(reason)
    except _UsageError as error:
        if heard(error):
            complain(_usage(error))
        return BAD_REQUEST
    except BrokenPipeError:
        # Whoever read our output has seen enough, as in `metaloss list | head`. Python would
        # complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status if isinstance(status, int) else 0


def _usage(error: Exception) -> str:
    """Return a usage error's message, with every allowed flag where one is unknown."""
    context, got = getattr(error, "ctx", None), getattr(error, "option_name", None)
    if got is None or context is None:
        return error.format_message()  # type: ignore[attr-defined]
    known = sorted(
        flag
        for parameter in context.command.get_params(context)
        for flag in parameter.opts
        if flag.startswith("--")
    )
    # Names are compared without their dashes, which any two flags have in common.
    close = difflib.get_close_matches(got.strip("-"), [flag.strip("-") for flag in known], n=1)
    hint = f"did you mean '--{close[0]}'? " if close else ""
    keys = "; keys are written KEY=VALUE, without dashes" if context.info_name == "train" else ""
    return f"unknown flag {got!r}: {hint}(allowed: {', '.join(known)}{keys})"
