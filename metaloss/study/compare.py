"""``metaloss compare``: rows over the same seeds, as a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from metaloss.core.files import write_atomically
from metaloss.errors import MetalossError
from metaloss.study import render
from metaloss.study.comparison_plot import plot_comparison
from metaloss.study.groups import groups_of_folders, groups_of_jobs
from metaloss.study.jobs import plan_jobs
from metaloss.study.launch import ProcessTrainer, Train, train_missing
from metaloss.study.progress import Display
from metaloss.study.spec import Study, load_study, parse_row, parse_seeds, to_yaml
from metaloss.study.summary_files import write_summary
from metaloss.study.table import Group, Table, make_table

STUDY_FILE = "study.yaml"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to compare.

    Attributes:
        jobs: Runs trained at the same time, each in a process of its own.
        threads: Threads of each.
        together: Seeds of a row in one process, as one vectorised program, where its parts allow;
            None: as the study says. The numbers are those of separate runs, but for rounding.
        reference: The row that the others are tested against; None: as the study says, else the
            first static row.
        metric: What is compared, such as ``"test/error"``; None: the task's own metric.
        arguments: Further words for every ``metaloss train``, such as ``--plugin FILE.py``.
    """

    jobs: int = 2
    threads: int = 1
    together: int | None = None
    reference: str | None = None
    metric: str | None = None
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("jobs", "threads"):
            if getattr(self, name) < 1:
                raise MetalossError(f"{name}={getattr(self, name)}: expected a number ≥ 1")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What came out. ``files``: what was written; ``notes``: what was left out, and why.

    ``tables``: one for each block, by name; a study without blocks has one without a name.
    """

    tables: dict[str, Table]
    files: tuple[Path, ...]
    notes: tuple[str, ...]

    @property
    def table(self) -> Table:
        """The table of a study without blocks."""
        return self.tables[""]


def compare(
    study: Study,
    out: Path,
    *,
    options: Options | None = None,
    train: Train | None = None,
    console: Console | None = None,
) -> Comparison:
    """Train what is missing of a study in ``out``, then compare its rows.

    Finished runs are reused if their configuration is the one asked for; anything else in their
    place is an error. Unfinished runs go on from their checkpoints. After Ctrl-C the same call
    goes on.

    Args:
        study: Rows and seeds.
        out: Runs lie in ``out/<row>/seed<k>``; ``table.csv``, ``table.json``, ``table.md``,
            ``comparison.png`` and ``study.yaml`` beside them. With blocks each has such a folder
            of its own, ``out/<block>``, and the tables are in ``out`` once more, together, with a
            summary over several blocks: ``summary.md``, ``summary.csv``, ``ranks.png`` and
            ``overview.png``.
        options: How.
        train: Trains one run; default: ``python -m metaloss train`` in a process of its own.
        console: Where people read.

    Raises:
        MetalossError: For a wrong word, a folder with another run in it, or runs that failed.
        KeyboardInterrupt: After Ctrl-C.
    """
    options = options or Options()
    console = console or Console()
    reference = options.reference or study.reference
    together = options.together or study.together
    # Checked before hours of training.
    study = replace(study, reference=reference, together=together)
    parts = _parts(study, out)
    jobs = {name: plan_jobs(part, folder) for name, (part, folder) in parts.items()}
    write_atomically(out / STUDY_FILE, to_yaml(study).encode())
    if train is None:
        train = ProcessTrainer(threads=options.threads, arguments=options.arguments)
    named = [
        replace(job, row=f"{name} · {job.row}" if name else job.row)
        for name, part in jobs.items()
        for job in part
    ]
    with Display(named, console) as display:
        train_missing(named, train, workers=options.jobs, watch=display, together=together)
    options = replace(options, reference=reference)
    found = {}
    for name, (part, folder) in parts.items():
        groups, notes = groups_of_jobs(jobs[name])
        found[name] = _finish(
            groups, notes, folder, options=options, title=part.description, console=console
        )
    return found[""] if not study.blocks else _joined(found, study, out, console)


def _parts(study: Study, out: Path) -> dict[str, tuple[Study, Path]]:
    """Return every block as a study of its own, with its folder, by name."""
    if not study.blocks:
        return {"": (study, out)}
    return {block.name: (study.of_block(block), out / block.slug) for block in study.blocks}


def _joined(found: dict[str, Comparison], study: Study, out: Path, console: Console) -> Comparison:
    """Write the tables of all blocks together, and what they say as a whole."""
    tables = {name: one.tables[""] for name, one in found.items()}
    notes = tuple(f"{name}: {note}" for name, one in found.items() for note in one.notes)
    texts = {
        "table.csv": render.blocks_to_csv(tables),
        "table.md": render.blocks_to_markdown(tables, notes),
    }
    for name, text in texts.items():
        write_atomically(out / name, text.encode())
    written = [out / name for name in texts]
    if len(tables) > 1:
        written += write_summary(
            tables, out, reference=study.reference, groups=study.groups, aside=study.aside
        )
    for file in written:
        console.print(f"wrote {file}", markup=False, highlight=False, soft_wrap=True)
    files = (
        *written,
        *(file for one in found.values() for file in one.files),
    )
    return Comparison(tables=tables, files=files, notes=notes)


def compare_folders(
    folders: Sequence[Path],
    out: Path,
    *,
    options: Options | None = None,
    console: Console | None = None,
) -> Comparison:
    """Compare finished runs: those whose configs differ in the seed alone are one row.

    Args:
        folders: Run folders; unfinished ones are left out, with a note.
        out: Where the tables and the picture go.
        options: How; only ``reference`` and ``metric`` matter.
        console: Where people read.

    Raises:
        MetalossError: If a folder holds no run, none has finished, or two are the same.
    """
    if (out / "config.yaml").exists():
        raise MetalossError(
            f"OUT={out} is a run's folder: name a folder for the table first, then the runs"
        )
    groups, notes = groups_of_folders(folders)
    return _finish(
        groups, notes, out, options=options or Options(), title="", console=console or Console()
    )


@dataclass(frozen=True, kw_only=True)
class Request:
    """``metaloss compare`` as typed.

    Attributes:
        out: The output folder.
        words: ``KEY=VALUE`` words for every row.
        rows: ``"NAME: KEY=VALUE ..."`` each.
        seeds: Such as ``0-4``; None: the study's, else 0.
        study: A shipped study's name or a YAML file; its rows come first.
        runs: Run folders to compare instead of training.
        options: How.
    """

    out: Path
    words: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    seeds: str | None = None
    study: str | None = None
    runs: tuple[Path, ...] = ()
    options: Options = Options()


def run_request(request: Request, *, console: Console | None = None) -> Comparison:
    """Do what ``metaloss compare`` was asked for.

    Without rows and study, the ``study.yaml`` that an earlier call left in ``out`` is used.

    Raises:
        MetalossError: For a request that cannot be met.
        KeyboardInterrupt: After Ctrl-C; the same request goes on from there.
    """
    if request.runs:
        if request.words or request.rows or request.seeds or request.study:
            raise MetalossError("--runs compares finished runs: it takes no rows, seeds or words")
        return compare_folders(request.runs, request.out, options=request.options, console=console)
    return compare(_study(request), request.out, options=request.options, console=console)


def _study(request: Request) -> Study:
    rows = tuple(parse_row(text) for text in request.rows)
    left = request.out / STUDY_FILE
    source = request.study or (left if not rows and left.is_file() else None)
    if source is None:
        seeds = parse_seeds(request.seeds or 0)
        return Study(rows=rows, seeds=seeds, common=request.words)
    study = load_study(source)
    return replace(
        study,
        rows=(*study.rows, *rows),
        seeds=study.seeds if request.seeds is None else parse_seeds(request.seeds),
        common=(*study.common, *request.words),
    )


def _finish(
    groups: Sequence[Group],
    notes: list[str],
    out: Path,
    *,
    options: Options,
    title: str,
    console: Console,
) -> Comparison:
    table = make_table(groups, reference=options.reference, metric=options.metric)
    picture = plot_comparison(groups, table, out / "comparison.png", title=title)
    texts = {
        "table.csv": render.to_csv(table),
        "table.json": render.to_json(table, notes),
        "table.md": render.to_markdown(table, notes),
    }
    for name, text in texts.items():
        write_atomically(out / name, text.encode())
    files = (*(out / name for name in texts), picture)
    if console.is_terminal:
        console.print(render.to_rich(table))
        for line in [*render.legend(table), *notes]:
            console.print(line, style="dim", highlight=False, markup=False)
    else:
        console.print(texts["table.md"], markup=False, highlight=False, soft_wrap=True)
    for file in files:
        console.print(f"wrote {file}", markup=False, highlight=False, soft_wrap=True)
    return Comparison(tables={"": table}, files=files, notes=tuple(notes))
