"""``metaloss compare`` and ``metaloss advise``: train and compare several methods and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metaloss.cli import plugin_files
from metaloss.cli.options import Plugins

Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        metavar="N",
        help="Runs trained at the same time. Default: 2, or the CPUs of a Ray cluster.",
    ),
]
Threads = Annotated[int, typer.Option("--threads", metavar="N", help="CPU threads of each run.")]


def compare(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder for runs, tables and pictures.")
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE|DIR",
            help="Settings of all rows, such as task=digits; or folders of finished runs.",
        ),
    ] = None,
    row: Annotated[
        list[str] | None,
        typer.Option(
            "--row",
            metavar="ROW",
            help="A row, such as 'mine: loss=mlp start=keep'. May be repeated.",
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", metavar="SEEDS", help="Seeds of every row, such as 0-4 or 0,2,5."),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            "--study",
            metavar="NAME|FILE",
            help="A study that comes with metaloss, such as demo, or a YAML file.",
        ),
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--runs",
            metavar="DIR",
            help="Folder of a finished run, or of a sweep. May be repeated.",
        ),
    ] = None,
    jobs: Jobs = None,
    threads: Threads = 1,
    together: Annotated[
        int | None,
        typer.Option(
            "--together",
            metavar="N",
            help="Seeds of a row that are trained together, if its parts allow it.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="NAME", help="Row that the others are tested against."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="NAME", help="Metric to compare, such as test/error."),
    ] = None,
    plugin: Plugins = None,
) -> int:
    """Compare methods over several seeds.

    Runs that are missing in OUT are trained first. The table has the mean and standard deviation of
    each metric over seeds, and a paired Wilcoxon test against the reference row.

    OUT then has the table (table.md, table.csv, table.json) and the learning curves
    (comparison.png). With losses that are learned online, it also has the learned loss over time
    (learned.csv, learned.png).
    """
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


def advise(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Task, model, inner optimizer and settings, such as task=digits steps=500.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for runs, tables and the advice.")
    ] = Path("advice"),
    seeds: Annotated[
        str,
        typer.Option(
            "--seeds",
            metavar="SEEDS",
            help="Seeds of the results. A significance test needs six.",
        ),
    ] = "0-9",
    jobs: Jobs = None,
    threads: Threads = 1,
    plugin: Plugins = None,
) -> int:
    """Say which method to use for a task, such as task=csv task.path=train.csv.

    Plain training, robust losses, training on trusted rows, and the learned loss get equal compute.
    Held-out trusted rows choose the settings and the method. Test rows measure the result. It ends
    with a paragraph in plain words: which method to use, how much better it is, and how certain
    that is. After Ctrl-C the same command continues.

    DIR then has advice.md and advice.json, beside the files of metaloss compare.
    """
    from metaloss.core.distributed.launch import refuse_several
    from metaloss.study.advise import advise as run
    from metaloss.study.spec.options import Options

    refuse_several("advise", "start it by itself, without a launcher")
    hashes = plugin_files.load(plugin)
    arguments = tuple(part for path in hashes for part in ("--plugin", path))
    options = Options(jobs=jobs, threads=threads, arguments=arguments)
    run(words or [], out, seeds=seeds, options=options)
    return 0
