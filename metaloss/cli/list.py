"""``metaloss list``: all registered parts and their options."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from metaloss.cli import plugin_files
from metaloss.cli.options import Plugins


def list_parts(
    group: Annotated[
        str | None,
        typer.Argument(
            metavar="GROUP", help="A group, such as loss; or preset, paper or settings."
        ),
    ] = None,
    plugin: Plugins = None,
) -> int:
    """List all parts; with GROUP, the parts of a group with their options.

    The groups are task, model, loss, schedule, start, meta_optimizer, inner and tracker. Instead of
    a group, preset or paper lists ready settings, and settings lists the keys that belong to no
    part.
    """
    from rich.console import RenderableType

    from metaloss.cli import tables
    from metaloss.tracking.quiet_console import QuietConsole

    plugin_files.load(plugin)
    # A pipe or a file has no width; a wide one avoids folded lines.
    console = QuietConsole(width=None if sys.stdout.isatty() else 140, highlight=False)
    width = console.width
    shown: Iterable[RenderableType]
    shown = tables.overview(width) if group is None else tables.details(group, width)
    for table in shown:
        console.print(table)
    return 0
