"""``metaloss evaluate``: the metrics of a trained model on rows with known targets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaloss.cli import plugin_files
from metaloss.cli.options import Plugins
from metaloss.errors import MetalossError

# Of more classes, the matrix is only in the file.
_MOST_CLASSES = 20


def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder.")],
    rows: Annotated[
        Path | None,
        typer.Argument(
            metavar="ROWS",
            help="Rows with their targets, such as test.csv; default: the run's test rows.",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Metrics, such as f1_macro,auroc; default: those of the run's task.metrics, or "
            "else all.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.json", help="Where to write the metrics, as JSON."),
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Use the weights of the best validation metric.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Evaluate even if the run has diverged.")
    ] = False,
    plugin: Plugins = None,
) -> int:
    """Print metrics and the confusion matrix (rows: true classes, columns: predicted ones)."""
    plugin_files.load(plugin)
    from metaloss.core.runs.load import load_run
    from metaloss.core.storage.files import write_json
    from metaloss.tracking.result_table import lined_up

    if out is not None and out.exists():
        raise MetalossError(f"--out {out} exists already: choose another file")
    names = [name.strip() for name in (metrics or "").split(",") if name.strip()]
    run = load_run(folder, diverged=force, best=best)
    found = run.evaluate(rows, metrics=names)
    print(f"{rows or 'test rows of the run'}: {found.rows} rows")
    width = max(map(len, found.metrics))
    for name, value in found.metrics.items():
        print(f"{name.ljust(width)}  {value:.4g}")
    if found.confusion is not None and len(found.confusion) <= _MOST_CLASSES:
        heads = [str(name) for name in found.classes or ()]
        counts = [[str(count) for count in row] for row in found.confusion.tolist()]
        table = zip(["true \\ predicted", *heads], [heads, *counts], strict=True)
        print("\n".join(lined_up([[name, *cells] for name, cells in table])))
    if out is not None:
        write_json(out, found.to_dict())
    return 0
