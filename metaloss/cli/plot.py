"""``metaloss plot`` and ``metaloss report``: pictures of a run, and one page with everything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plot(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder to write to. Default: the run's folder."),
    ] = None,
) -> int:
    """Draw the learning curves and the learned loss of a run."""
    from metaloss.study.plots.run_plot import plot_run

    for file in plot_run(folder, out):
        print(file)
    return 0


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a run, or of a comparison.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.html",
            help="The file to write. Default: report.html in the folder.",
        ),
    ] = None,
) -> int:
    """Write a web page with curves, tables and the loss over training. It needs no internet."""
    from metaloss.study.report.report import write_report

    print(write_report(folder, out))
    return 0
