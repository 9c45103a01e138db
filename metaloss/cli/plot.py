"""``metaloss plot``: pictures of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plot(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder to write to. Default: the run's folder.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Draw the learning curves and the learned loss of a run."""
    from metaloss.study.plots.run_plot import plot_run

    for file in plot_run(folder, out):
        print(file)
    return 0
