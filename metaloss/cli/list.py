"""``metaloss list``: every registered part, where it comes from, and its options."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from metaloss.cli.options import Plugins


def list_parts(
    group: Annotated[
        str | None,
        typer.Argument(
            metavar="[GROUP]", help="A group, such as loss; default: all.", show_default=False
        ),
    ] = None,
    plugin: Plugins = None,
) -> int:
    """List all parts; with GROUP, the options of its parts.

    Groups: task, model, loss, schedule, start, meta_optimizer, inner, tracker, preset, paper; and
    settings, the keys that belong to no part.
    """
    from rich.console import RenderableType

    from metaloss.cli import plugin_files, tables
    from metaloss.tracking.quiet_console import QuietConsole

    plugin_files.load(plugin)
    shown: Iterable[RenderableType]
    shown = tables.overview() if group is None else tables.details(group)
    # Where no terminal says how wide it is, a pipe or a file, lines are not folded early.
    console = QuietConsole(width=None if sys.stdout.isatty() else 140, highlight=False)
    for table in shown:
        console.print(table)
    return 0
