"""``metaloss suspects``: the training rows whose labels may be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from metaloss.cli import plugin_files
from metaloss.cli.options import Plugins
from metaloss.errors import MetalossError

# Of the picture: more would be too small to see.
_MOST_PICTURES = 48


def suspects(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.csv",
            help="Where to write all training rows; default: suspects.csv in the run's folder.",
        ),
    ] = None,
    top: Annotated[
        int, typer.Option("--top", metavar="N", min=0, help="How many rows to print and draw.")
    ] = 20,
    force: Annotated[
        bool, typer.Option("--force", help="List them even if the run has diverged.")
    ] = False,
    plugin: Plugins = None,
) -> int:
    """List the training rows, those with the most doubtful label first."""
    plugin_files.load(plugin)
    from metaloss.core.runs.load import load_run
    from metaloss.core.runs.suspects import quality, suspects_of
    from metaloss.core.storage.files import write_atomically
    from metaloss.study.plots.suspects_plot import picture_of

    run = load_run(folder, diverged=force)
    out, given = out or folder / "suspects.csv", out
    picture = out.with_suffix(".png")
    if picture == out:
        raise MetalossError(
            f"--out {out}: the picture gets this name; expected a name such as x.csv"
        )
    for path in (out, picture) if given else ():
        if path.exists():
            raise MetalossError(f"--out {path} exists already: choose another file")
    table, task = suspects_of(folder, run.model, run.pipeline)
    write_atomically(out, table.to_csv(index=False).encode("utf-8", "backslashreplace"))
    print(_lines(table.head(top)))
    print(f"{out}: {len(table)} rows, the most doubtful label first")
    if count := min(top, _MOST_PICTURES):
        drawn = picture_of(table.head(count), task.train.inputs)
        if drawn is not None:
            write_atomically(picture, drawn)
            print(f"{picture}: the first {count}")
    if (found := quality(table)) is not None:
        print(
            f"the task made {found['wrong labels']:.0f} labels wrong: AUROC {found['auroc']:.3f}; "
            f"{found['precision']:.1%} of the first {found['wrong labels']:.0f} rows are wrong"
        )
    return 0


def _lines(table: Any) -> str:
    if not len(table):
        return ""
    return str(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
