"""``metaloss export``: the learned loss of a run, for use anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaloss.cli.options import Plugins


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where to write the loss.")],
    plugin: Plugins = None,
) -> int:
    """Copy the learned loss out of a run: its numbers and its structure, as data without code."""
    from metaloss.cli import plugin_files

    plugin_files.load(plugin)
    from metaloss.core.runs.results import export_run

    for file in export_run(folder, out):
        print(file)
    return 0
