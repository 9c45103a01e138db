"""``metaloss compare``: a table over seeds, trained or read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaloss.cli.options import Plugins


def compare(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The folder for runs, tables and the picture.")
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE | DIR]...",
            help="Settings of all rows, such as task=digits; or folders of finished runs.",
            show_default=False,
        ),
    ] = None,
    row: Annotated[
        list[str] | None,
        typer.Option(
            "--row",
            metavar="'NAME: KEY=VALUE ...'",
            help="A row; may be repeated.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", metavar="0-4", help="Seeds of every row.", show_default=False),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            "--study",
            metavar="NAME|FILE",
            help="Take the rows from a study, such as demo.",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--runs", metavar="DIR", help="A finished run; may be repeated.", show_default=False
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            metavar="N",
            help="Runs to train at the same time; default: 2, or one for each CPU of Ray.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", help="Threads of each run.")] = 1,
    together: Annotated[
        int | None,
        typer.Option(
            "--together",
            metavar="N",
            help="Seeds of a row to train in one vectorised program, where its parts allow it.",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="NAME",
            help="The row that the others are tested against.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="The metric to compare, such as test/error.",
            show_default=False,
        ),
    ] = None,
    plugin: Plugins = None,
) -> int:
    """Compare rows over the same seeds: train what is missing, print and write the table.

    OUT gets table.csv, table.json and table.md (final metrics as mean ± std over seeds, a paired
    Wilcoxon test against the reference row) and comparison.png (learning curves). Where losses
    move during training it also gets learned.csv and learned.png, which describe them over time.
    The same call again trains only what is missing.
    """
    from metaloss.cli import plugin_files
    from metaloss.core.distributed.launch import refuse_several
    from metaloss.study.compare import Request, run_request
    from metaloss.study.spec.options import Options

    refuse_several("compare", "start it by itself, without a launcher")
    hashes = plugin_files.load(plugin)
    words = words or []
    run_request(
        Request(
            out=out,
            words=tuple(word for word in words if "=" in word),
            rows=tuple(row or ()),
            seeds=seeds,
            study=study,
            runs=(*(runs or ()), *(Path(word) for word in words if "=" not in word)),
            options=Options(
                jobs=jobs,
                threads=threads,
                together=together,
                reference=reference,
                metric=metric,
                arguments=tuple(part for path in hashes for part in ("--plugin", path)),
            ),
        )
    )
    return 0
