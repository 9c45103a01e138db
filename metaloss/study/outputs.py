"""What a comparison leaves behind: tables as files, the picture, and what people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from metaloss.core.storage.files import write_atomically
from metaloss.study.plots.comparison_plot import plot_comparison
from metaloss.study.plots.reading_plot import plot_readings
from metaloss.study.spec.spec import Study
from metaloss.study.summary_files import write_summary
from metaloss.study.tables import render
from metaloss.study.tables.reading import readings_of
from metaloss.study.tables.reading import to_csv as readings_to_csv
from metaloss.study.tables.table import Group, Table, make_table


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a table is made of.

    Attributes:
        groups: Rows of finished runs.
        notes: What was left out, and why.
        choices: What the rows' settings are, and how they were chosen.
        title: The picture's.
        reference: The row that the others are tested against; None: the first static one.
        metric: What is compared; None: the task's own metric.
        aside: Rows that are no rivals of the reference.
    """

    groups: Sequence[Group]
    notes: Sequence[str]
    choices: Sequence[str] = ()
    title: str = ""
    reference: str | None = None
    metric: str | None = None
    aside: tuple[str, ...] = ()


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


def write_table(finished: Finished, out: Path, console: Console) -> Comparison:
    """Write the table and the pictures of one block; print the table.

    Raises:
        MetalossError: If the reference is no row, or the runs share no such metric.
    """
    groups, below = finished.groups, [*finished.choices, *finished.notes]
    table = make_table(
        groups, reference=finished.reference, metric=finished.metric, aside=finished.aside
    )
    picture = plot_comparison(groups, table, out / "comparison.png", title=finished.title)
    texts = {
        "table.csv": render.to_csv(table),
        "table.json": render.to_json(table, below),
        "table.md": render.to_markdown(table, below),
    }
    pictures = [picture]
    if readings := readings_of(groups):
        texts["learned.csv"] = readings_to_csv(readings)
        regression = next(iter(groups[0].runs.values())).link == "identity"
        pictures.append(plot_readings(readings, out / "learned.png", regression=regression))
    for name, text in texts.items():
        write_atomically(out / name, text.encode())
    files = (*(out / name for name in texts), *pictures)
    if console.is_terminal:
        console.print(render.to_rich(table))
        for line in [*render.legend(table), *below]:
            console.print(line, style="dim", highlight=False, markup=False)
    else:
        console.print(texts["table.md"], markup=False, highlight=False, soft_wrap=True)
    for file in files:
        _say_written(file, console)
    return Comparison(tables={"": table}, files=files, notes=tuple(finished.notes))


def write_blocks(
    study: Study,
    found: Mapping[str, Comparison],
    out: Path,
    console: Console,
    *,
    sections: Sequence[str] = (),
) -> Comparison:
    """Write the tables of all blocks together, and what several of them say as a whole.

    Args:
        study: What was compared.
        found: What came out of each block, by name.
        out: The folder.
        console: Where people read.
        sections: Markdown below the tables.
    """
    tables = {name: one.tables[""] for name, one in found.items()}
    notes = tuple(f"{name}: {note}" for name, one in found.items() for note in one.notes)
    texts = {
        "table.csv": render.blocks_to_csv(tables),
        "seeds.csv": render.seeds_to_csv(tables),
        "table.md": "\n".join([render.blocks_to_markdown(tables, notes), *sections]),
    }
    written = [write_text(out / name, text, console) for name, text in texts.items()]
    if len(tables) > 1:
        summary = write_summary(
            tables, out, reference=study.reference, groups=study.groups, aside=study.aside
        )
        for file in summary:
            _say_written(file, console)
        written += summary
    files = (*written, *(file for one in found.values() for file in one.files))
    return Comparison(tables=tables, files=files, notes=notes)


def write_text(path: Path, text: str, console: Console) -> Path:
    """Write a file and say so; return its path."""
    write_atomically(path, text.encode())
    _say_written(path, console)
    return path


def _say_written(path: Path, console: Console) -> None:
    console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
