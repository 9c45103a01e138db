"""``metaloss compare``: trains rows over the same seeds and writes tables and plots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from rich.console import Console

from metaloss.compose import compose
from metaloss.core.execution.processes import Processes
from metaloss.core.storage.files import write_atomically
from metaloss.errors import MetalossError
from metaloss.study.launch.jobs import Job, plan_jobs
from metaloss.study.launch.launch import ProcessTrainer, Train, train_missing
from metaloss.study.launch.progress import Display
from metaloss.study.launch.tuning import Score, check_finals, plan_trials, score_settings, settle
from metaloss.study.outputs import Comparison, Finished, say_written, write_blocks, write_table
from metaloss.study.spec.options import Options, split_launcher
from metaloss.study.spec.spec import Study
from metaloss.study.spec.study_file import STUDY_FILE, load_study, parse_row, parse_seeds, to_yaml
from metaloss.study.tables import tuning_text
from metaloss.study.tables.groups import groups_of_folders, groups_of_jobs, runs_in
from metaloss.study.tables.render import to_csv
from metaloss.tracking.quiet_console import QuietConsole

_JOBS = 2


def compare(
    study: Study,
    out: Path,
    *,
    options: Options | None = None,
    train: Train | None = None,
    console: Console | None = None,
) -> Comparison:
    """Train the missing runs of a study in ``out``, then compare its rows.

    Finished runs are reused if they have the same config; anything else in their folder is an
    error. Unfinished runs are resumed. After Ctrl-C, the same call continues.

    Rows with settings to tune are tuned first, separately in each block; see
    `metaloss.study.launch.tuning`.

    Args:
        study: Rows and seeds.
        out: The output folder. Runs are in ``out/<row>/seed<k>``, with ``table.csv``,
            ``table.json``, ``table.md``, ``comparison.png`` and ``study.yaml`` in ``out``, and
            ``learned.csv`` and ``learned.png`` if losses are learned during training. With blocks,
            each has such a folder, ``out/<block>``, and ``out`` has the tables of all blocks, the
            result of every run in ``seeds.csv``, and a summary: ``summary.md``, ``summary.csv``,
            ``ranks.png`` and ``overview.png``. Tuning runs are in
            ``tuning/<row>/<setting>/seed<k>``, and all their results in ``out/tuning.csv``.
        options: How to train and compare.
        train: Trains one run; default: ``python -m metaloss train`` in a process of its own, here
            or on Ray.
        console: The console for output.

    Raises:
        MetalossError: For an invalid argument, a folder with another run, or failed runs.
        KeyboardInterrupt: After Ctrl-C.
    """
    options = options or Options()
    console = console or QuietConsole()
    study = replace(
        study,
        reference=options.reference or study.reference,
        together=options.together or study.together,
    )
    resolve = cache(compose)
    parts = _parts(study, out)
    # Check it before hours of training.
    trials = {name: plan_trials(part, folder, resolve) for name, (part, folder) in parts.items()}
    for part, folder in parts.values():
        check_finals(part, folder, resolve)
    write_atomically(out / STUDY_FILE, to_yaml(study).encode())

    split = "test" if study.folds else "valid"  # rows that are held out are the test rows
    with _training(study, options, train, console) as run:
        if study.tuning_seeds:
            tried = {
                name: [job for one in some for job in one.jobs] for name, some in trials.items()
            }
            run(tried, "tuning runs", "held-out" if study.folds else split)
        scores = {name: score_settings(some, split) for name, some in trials.items()}
        jobs = {
            name: plan_jobs(settle(part, scores[name]), folder, resolve=resolve)
            for name, (part, folder) in parts.items()
        }
        run(jobs, "runs", "test")
    found = {}
    learned = {
        job.row
        for some in jobs.values()
        for job in some
        if job.config["schedule"]["name"] != "static"
    }
    for name, (part, folder) in parts.items():
        groups, notes = groups_of_jobs(jobs[name])
        finished = Finished(
            groups=groups,
            notes=[*tuning_text.unsound(scores[name]), *notes],
            choices=tuning_text.choices(part, scores[name]),
            title=part.description,
            reference=study.reference,
            metric=options.metric,
            aside=part.aside,
            learned=tuple(row.name for row in study.rows if row.name in learned),
        )
        found[name] = write_table(finished, folder, console)
    return replace(_together(study, out, found, scores, console), scores=scores)


@contextmanager
def _training(
    study: Study, options: Options, train: Train | None, console: Console
) -> Iterator[Callable[[Mapping[str, Sequence[Job]], str, str], None]]:
    """Yield a function that trains the jobs of every block and shows their progress."""
    with ExitStack() as entered:
        trainer = train or entered.enter_context(_trainer(options))

        def run(jobs: Mapping[str, Sequence[Job]], what: str, split: str) -> None:
            named = [
                replace(job, row=f"{name} · {job.row}" if name else job.row)
                for name, some in jobs.items()
                for job in some
            ]
            if options.executor is not None:
                _refuse_searches(named)
            workers = options.jobs or int(getattr(trainer, "room", _JOBS))
            with Display(named, console, what=what, split=split) as display:
                train_missing(
                    named, trainer, workers=workers, watch=display, together=study.together
                )

        yield run


def _together(
    study: Study,
    out: Path,
    found: Mapping[str, Comparison],
    scores: Mapping[str, Sequence[Score]],
    console: Console,
) -> Comparison:
    """Write the results of all blocks together."""
    more = tuning_text.to_text(study, scores) if study.tuning_seeds else ""
    whole = write_blocks(study, found, out, console, more) if study.blocks else found[""]
    if study.tuning_seeds:
        file = out / "tuning.csv"
        write_atomically(file, to_csv(tuning_text.numbers(scores)).encode())
        say_written([file], console)
        whole = replace(whole, files=(*whole.files, file))
    return whole


def _trainer(options: Options) -> AbstractContextManager[Train]:
    asked = options.executor or Processes(count=options.jobs or _JOBS)
    executor = asked.open(threads=options.threads, keep=False)
    return ProcessTrainer(executor=executor, arguments=options.arguments)


def _refuse_searches(jobs: Iterable[Job]) -> None:
    """Raise for a run whose search waits for the executor, which may be full of such runs."""
    for job in jobs:
        workers = job.config["meta_optimizer"].get("workers", "1")
        if not workers.isdigit():
            raise MetalossError(
                f"row {job.row!r}: meta_optimizer.workers={workers} beside hydra/launcher: the "
                "runs are on other machines already; leave one of the two out"
            )


def _parts(study: Study, out: Path) -> dict[str, tuple[Study, Path]]:
    """Return every block as a separate study, with its folder, by name."""
    if not study.blocks:
        return {"": (study, out)}
    return {block.name: (study.of_block(block), out / block.slug) for block in study.blocks}


def compare_folders(
    folders: Sequence[Path],
    out: Path,
    *,
    options: Options | None = None,
    console: Console | None = None,
) -> Comparison:
    """Compare finished runs. Runs whose configs differ only in the seed are one row.

    Args:
        folders: Folders of runs, or of sweeps and comparisons with runs in them; unfinished runs
            are left out, with a note.
        out: The folder of the tables and plots.
        options: Only ``reference`` and ``metric`` are used.
        console: The console for output.

    Raises:
        MetalossError: If a folder has no run, no run has finished, or two are the same.
    """
    if (out / "config.yaml").exists():
        raise MetalossError(
            f"OUT={out} is the folder of a run: give a folder for the table first, then the runs"
        )
    groups, notes = groups_of_folders([run for folder in folders for run in runs_in(folder)])
    options = options or Options()
    finished = Finished(
        groups=groups, notes=notes, reference=options.reference, metric=options.metric
    )
    return write_table(finished, out, console or QuietConsole())


@dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of ``metaloss compare``.

    Attributes:
        out: The output folder.
        words: ``KEY=VALUE`` arguments for every row; ``hydra/launcher=ray`` trains them on Ray.
        rows: ``"NAME: KEY=VALUE ..."`` each.
        seeds: For example ``0-4``; None: those of the study, or 0.
        study: The name of a shipped study or a YAML file; its rows come first.
        runs: Folders of runs to compare, without training.
        options: How to train and compare.
    """

    out: Path
    words: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    seeds: str | None = None
    study: str | None = None
    runs: tuple[Path, ...] = ()
    options: Options = field(default_factory=Options)


def run_request(request: Request, *, console: Console | None = None) -> Comparison:
    """Run ``metaloss compare``.

    Without rows and study, ``study.yaml`` of an earlier call in ``out`` is used.

    Raises:
        MetalossError: For invalid arguments or failed runs.
        KeyboardInterrupt: After Ctrl-C; the same call continues.
    """
    if request.runs:
        if request.words or request.rows or request.seeds or request.study:
            raise MetalossError(
                "--runs compares finished runs: expected no rows, seeds or KEY=VALUE"
            )
        return compare_folders(request.runs, request.out, options=request.options, console=console)
    executor, words = split_launcher(request.words)
    options = replace(request.options, executor=executor or request.options.executor)
    study = _study(replace(request, words=words))
    return compare(study, request.out, options=options, console=console)


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
