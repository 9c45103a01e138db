"""``metaloss export``: write the learned loss of a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from metaloss.cli import plugin_files
from metaloss.cli.options import Plugins


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to.")],
    plugin: Plugins = None,
) -> int:
    """Write the learned loss of a run to a folder.

    It writes data files without code, and criterion.py, a function for programs without metaloss.
    A loss that needs more than outputs and targets, or that has no source, has no criterion.py.
    If the run recorded the loss over the course of training, loss_schedule.safetensors has it.
    """
    plugin_files.load(plugin)
    from metaloss.core.runs.results import export_run
    from metaloss.losses.export import load_loss

    files = export_run(folder, out)
    for file in files:
        print(file)
    if not any(file.name == "criterion.py" for file in files):
        sees_more = load_loss(out).sees
        reason = "needs more than outputs and targets" if sees_more else "has no source for it"
        print(
            f"metaloss: no criterion.py: this loss {reason}; use metaloss.load_loss({str(out)!r})",
            file=sys.stderr,
        )
    return 0
