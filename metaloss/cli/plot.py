"""``metaloss plot``: the pictures of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plot(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="The folder to write to; default: the run's folder.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Draw a run's learning curves and its learned loss over time, from its journal."""
    from metaloss.study.plots.plots import plot_run

    for file in plot_run(folder, out):
        print(file)
    return 0
