"""The output of a comparison: files with tables and plots, and text in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from metaloss.core.storage.files import write_atomically
from metaloss.study.launch.tuning import Score
from metaloss.study.plots.comparison_plot import plot_comparison
from metaloss.study.plots.overview_plot import plot_overview
from metaloss.study.plots.rank_plot import plot_ranks
from metaloss.study.plots.reading_plot import plot_readings
from metaloss.study.spec.spec import Study
from metaloss.study.tables import reading, summary_text, table_text
from metaloss.study.tables.groups import groups_of_folders, runs_in
from metaloss.study.tables.render import fitting, to_csv, to_rich
from metaloss.study.tables.summary import ALL, Summary, summarize
from metaloss.study.tables.table import Group, Table, make_table


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The content of a table.

    Attributes:
        groups: Rows of finished runs.
        notes: Messages about runs that were left out.
        choices: The tuned settings of the rows, and how they were chosen.
        title: The title of the plot.
        reference: The row that the others are tested against; None: the first static one.
        metric: The metric to compare; None: that of the task.
        aside: Rows that are not rivals of the reference.
        learned: The rows of all blocks of the study whose loss is learned, in order.
    """

    groups: Sequence[Group]
    notes: Sequence[str]
    choices: Sequence[str] = ()
    title: str = ""
    reference: str | None = None
    metric: str | None = None
    aside: tuple[str, ...] = ()
    learned: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The results. ``files``: the written files; ``notes``: messages about left out runs.

    ``tables``: one for each block, by name; a study without blocks has one without a name.
    ``scores``: the settings that were tried in each block.
    """

    tables: dict[str, Table]
    files: tuple[Path, ...]
    notes: tuple[str, ...]
    scores: Mapping[str, Sequence[Score]] = field(default_factory=dict)

    @property
    def table(self) -> Table:
        """The table of a study without blocks."""
        return self.tables[""]


def write_table(finished: Finished, out: Path, console: Console) -> Comparison:
    """Write the table and the plots of one block; print the table.

    Raises:
        MetalossError: If the reference is not a row, or not all runs have the metric.
    """
    groups, below = finished.groups, [*finished.choices, *finished.notes]
    table = make_table(
        groups, reference=finished.reference, metric=finished.metric, aside=finished.aside
    )
    readings = reading.readings_of(groups)
    texts = {
        "table.csv": to_csv(table_text.numbers({"": table}).drop(columns="block")),
        "table.json": table_text.to_json(table, below),
        "table.md": table_text.to_text({"": table}, below),
        **({} if readings.empty else {"learned.csv": reading.to_csv(readings)}),
    }
    files = [_write(out / name, text) for name, text in texts.items()]
    files.append(plot_comparison(groups, table, out / "comparison.png", title=finished.title))
    if not readings.empty:
        regression = next(iter(groups[0].runs.values())).link == "identity"
        picture = out / "learned.png"
        files.append(plot_readings(readings, picture, regression=regression, rows=finished.learned))
    _show(table, below, texts["table.md"], console)
    say_written(files, console)
    return Comparison(tables={"": table}, files=tuple(files), notes=tuple(finished.notes))


def print_table(folder: Path, console: Console) -> None:
    """Print the table of all finished runs in a folder, if there are two or more."""
    runs = runs_in(folder)
    groups, notes = groups_of_folders(runs)
    if sum(len(group.runs) for group in groups) > 1:
        table = make_table(groups)
        _show(table, notes, table_text.to_text({"": table}, notes), console)


def _show(table: Table, below: Sequence[str], text: str, console: Console) -> None:
    if console.is_terminal:
        shown = fitting(table_text.shown(table), console.width, table_text.LEAST_NEEDED)
        console.print(to_rich(shown, bold=table.best))
        for line in [*table_text.legend(table), *below]:
            console.print(line, style="dim", highlight=False, markup=False)
    else:
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def write_blocks(
    study: Study, found: Mapping[str, Comparison], out: Path, console: Console, more: str = ""
) -> Comparison:
    """Write the tables of all blocks, and a summary over several blocks.

    Args:
        study: The study.
        found: The results of each block, by name.
        out: The folder.
        console: The console for output.
        more: Markdown below the tables.
    """
    tables = {name: one.table for name, one in found.items()}
    notes = tuple(f"{name}: {note}" for name, one in found.items() for note in one.notes)
    text = table_text.to_text(tables, notes)
    texts = {
        "table.csv": to_csv(table_text.numbers(tables)),
        "seeds.csv": to_csv(table_text.numbers_by_seed(tables)),
        "table.md": f"{text}\n{more}" if more else text,
    }
    files = [_write(out / name, text) for name, text in texts.items()]
    if len(tables) > 1:
        summaries = summarize(tables, reference=study.reference, groups=study.groups)
        files += write_summary(summaries, tables, out)
    say_written(files, console)
    every = (*files, *(file for one in found.values() for file in one.files))
    return Comparison(tables=tables, files=every, notes=notes)


def write_summary(
    summaries: Mapping[str, Summary], tables: Mapping[str, Table], out: Path
) -> list[Path]:
    """Write the summary over the blocks. ``ranks.png`` needs two rows in two blocks."""
    files = [
        _write(out / "summary.md", summary_text.to_text(summaries)),
        _write(out / "summary.csv", to_csv(summary_text.numbers(summaries))),
    ]
    whole = summaries[ALL]
    ranks = {label: one.ranks for label, one in summaries.items() if one.ranks is not None}
    if ranks:
        files.append(plot_ranks(ranks, out / "ranks.png", reference=whole.reference))
    return [*files, plot_overview(tables, out / "overview.png", reference=whole.reference)]


def _write(path: Path, text: str) -> Path:
    write_atomically(path, text.encode())
    return path


def say_written(files: Sequence[Path], console: Console) -> None:
    """Print the written files."""
    for path in files:
        console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
