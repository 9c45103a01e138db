"""``metaloss predict``: predictions of a trained model for new rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaloss.cli import plugin_files
from metaloss.cli.options import Plugins
from metaloss.errors import MetalossError


def predict(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder.")],
    rows: Annotated[Path, typer.Argument(metavar="ROWS", help="New rows, such as new.csv.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE.csv", help="Where to write the predictions.")
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Predict even if the run has diverged.")
    ] = False,
    best: Annotated[
        bool, typer.Option("--best", help="Use the weights of the best validation metric.")
    ] = False,
    plugin: Plugins = None,
) -> int:
    """Predict new rows: the class and the probability of each class, or the value."""
    plugin_files.load(plugin)
    from metaloss.core.runs.load import load_run, predict_file

    if out.exists():
        raise MetalossError(f"--out {out} exists already: choose another file")
    table = predict_file(load_run(folder, diverged=force, best=best), rows, out)
    print(f"{out}: {len(table)} rows")
    return 0
