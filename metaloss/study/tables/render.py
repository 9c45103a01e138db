"""A comparison's table as CSV, JSON and Markdown, and in the terminal."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table as RichTable

from metaloss.study.tables.statistics import FEWEST_PAIRS, MeanStd
from metaloss.study.tables.table import Line, Table


def to_json(table: Table, notes: list[str]) -> str:
    """Return every number, those by seed included."""
    return json.dumps(asdict(table) | {"notes": notes}, indent=2, ensure_ascii=False) + "\n"


def to_csv(table: Table) -> str:
    """Return one row a line, unrounded; empty where there is no number."""
    head = ["row", "n", "metric", "mean", "std", "best_mean", "best_std", "valid_mean", "valid_std"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    more = ["diverged", "seconds", "reference", "difference", "pairs", "p", "p_holm"]
    writer.writerow([*head, *more])
    for line in table.lines:
        parts = (number for part in (line.final, line.best, line.valid) for number in _parts(part))
        tests = [table.reference, line.difference, line.pairs, line.p, line.p_holm]
        writer.writerow(
            [line.name, line.n, table.metric, *parts, line.diverged, line.seconds, *tests]
        )
    return text.getvalue()


def blocks_to_csv(tables: Mapping[str, Table]) -> str:
    """Return the rows of all blocks under one head, the block's name in front."""
    texts = {name: list(csv.reader(io.StringIO(to_csv(table)))) for name, table in tables.items()}
    head = next(iter(texts.values()))[0]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["block", *head])
    writer.writerows([name, *row] for name, rows in texts.items() for row in rows[1:])
    return text.getvalue()


def seeds_to_csv(tables: Mapping[str, Table]) -> str:
    """Return the final test metric of every run, a column for each seed; empty where none is.

    The final means, the differences and the tests follow from these.
    """
    lines = [(name, table.metric, line) for name, table in tables.items() for line in table.lines]
    seeds = sorted({seed for *_, line in lines for seed in line.values})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["block", "row", "metric", *(f"seed {seed}" for seed in seeds)])
    writer.writerows(
        [name, line.name, metric, *map(line.values.get, seeds)] for name, metric, line in lines
    )
    return text.getvalue()


def blocks_to_markdown(tables: Mapping[str, Table], notes: Sequence[str]) -> str:
    """Return the blocks' tables under headings, with what must be known to read them."""
    parts = [f"## {name}\n\n{_markdown_table(table)}" for name, table in tables.items()]
    below = dict.fromkeys(line for table in tables.values() for line in legend(table))
    return "\n\n".join(parts) + "\n\n" + "\n".join(f"- {line}" for line in [*below, *notes]) + "\n"


def to_markdown(table: Table, notes: list[str]) -> str:
    """Return an aligned Markdown table, with what must be known to read it."""
    below = "\n".join(f"- {line}" for line in [*legend(table), *notes])
    return f"{_markdown_table(table)}\n\n{below}\n"


def _markdown_table(table: Table) -> str:
    return aligned(*cells(table))


def aligned(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table whose columns align as text too: the first left, the others right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def show(row: list[str]) -> str:
        first, *rest = (
            c.ljust(w) if not i else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = (
        "|"
        + "|".join(
            "-" * (width + 2) if not i else "-" * (width + 1) + ":"
            for i, width in enumerate(widths)
        )
        + "|"
    )
    return "\n".join([show(head), rule, *map(show, rows)])


def to_rich(table: Table) -> RichTable:
    """Return the table for a terminal; the best mean stands out."""
    head, rows = cells(table)
    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, title in enumerate(head):
        shown.add_column(title, justify="right" if index else "left", no_wrap=index > 0)
    for line, row in zip(table.lines, rows, strict=True):
        shown.add_row(*row, style="bold" if line.name == table.best else None)
    return shown


def cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """Return the titles and the rows as text, rounded for reading."""
    head = ["", "n", table.metric, "at best validation", "validation", "diverged", "seconds"]
    digits = decimals(table)

    def one(line: Line) -> list[str]:
        return [
            line.name,
            str(line.n),
            "–" if line.final is None else line.final.show(digits),
            "–" if line.best is None else line.best.show(digits),
            "–" if line.valid is None else f"{line.valid.mean:.{digits}f}",
            str(line.diverged),
            "–" if line.seconds is None else f"{line.seconds:.1f}",
            "–" if line.difference is None else f"{line.difference:+.{digits}f}",
            *_tests(table, line),
        ]

    return [*head, "difference", "p", "p (Holm)"], [one(line) for line in table.lines]


def legend(table: Table) -> list[str]:
    """Return what must be known to read the table."""
    better = "lower" if table.goal == "min" else "higher"
    lines = [f"{table.metric}: mean ± sample standard deviation over n seeds; {better} is better"]
    if len(table.lines) > 1:
        lines.append(
            f"difference, p: paired by seed against {table.reference!r}; exact two-sided Wilcoxon "
            f"signed-rank test, Holm-corrected; 'n too small' below {FEWEST_PAIRS} pairs"
        )
    aside = [name for name in table.aside if name != table.reference]
    if aside:
        lines.append(
            f"aside, no rivals of {table.reference!r}: {', '.join(map(repr, aside))}; Holm's "
            "correction counts these among themselves, and the rivals without them"
        )
    chance = [f"{line.name!r} ({line.chance} of {line.n})" for line in table.lines if line.chance]
    if chance:
        lines.append(f"runs no better than the best constant prediction: {', '.join(chance)}")
    if any(line.final is None or line.final.n < line.n for line in table.lines):
        lines.append("runs without a finite number are left out of mean, difference and test")
    return lines


def show_p(p: float | None) -> str:
    """Return a p value as text.

    Example:
        >>> show_p(0.03125), show_p(0.00002), show_p(None)
        ('0.031', '2e-05', 'n too small')
    """
    if p is None:
        return "n too small"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def _tests(table: Table, line: Line) -> list[str]:
    if line.name == table.reference:
        return ["reference", ""]
    if not line.pairs:
        return ["no pairs", ""]
    return [show_p(line.p), "" if line.p is None else show_p(line.p_holm)]


def _parts(value: MeanStd | None) -> list[Any]:
    return ["", ""] if value is None else [value.mean, value.std]


def decimals(table: Table) -> int:
    """Return how many decimals show three or four significant digits of the largest mean."""
    means = [abs(line.final.mean) for line in table.lines if line.final is not None]
    largest = max(means, default=0.0)
    if largest == 0:
        return 4
    return min(8, max(0, 3 - math.floor(math.log10(largest))))
