"""``metaloss report``: a run or a study as one page of HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
            show_default=False,
        ),
    ] = None,
) -> int:
    """Write a page with curves, the loss over training and tables, which needs no network."""
    from metaloss.study.report.report import write_report

    print(write_report(folder, out))
    return 0
