"""The table of a comparison as text: unrounded numbers, and rounded ones to read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from metaloss.errors import MetalossError
from metaloss.study.tables.render import bullets, frame_of, show_p, to_markdown
from metaloss.study.tables.statistics import FEWEST_PAIRS, MeanStd
from metaloss.study.tables.table import Line, Table

_NUMBERS = (
    "block", "row", "n", "metric", "mean", "std", "best_mean", "best_std", "valid_mean",
    "valid_std", "diverged", "seconds", "reference", "difference", "pairs", "p", "p_holm",
)  # fmt: skip
# Columns that a narrow terminal has no room for, in the order in which they are left out.
LEAST_NEEDED = (
    "p", "seconds", "diverged", "validation", "at best validation", "n", "p (Holm)", "difference",
)  # fmt: skip


def numbers(tables: Mapping[str, Table]) -> pd.DataFrame:
    """Return the unrounded numbers of all blocks, with the block's name in the first column."""
    return frame_of(
        _NUMBERS,
        (
            {"block": block, "row": line.name, **vars(table), **vars(line), **_means(line)}
            for block, table in tables.items()
            for line in table.lines
        ),
    )


def numbers_by_seed(tables: Mapping[str, Table]) -> pd.DataFrame:
    """Return the final test metric of every run, with a column for each seed.

    All means, differences and tests are computed from these numbers.
    """
    lines = [(block, table, line) for block, table in tables.items() for line in table.lines]
    seeds = sorted({seed for *_, line in lines for seed in line.values})
    return frame_of(
        ["block", "row", "metric", *(f"seed {seed}" for seed in seeds)],
        (
            {"block": block, "row": line.name, "metric": table.metric}
            | {f"seed {seed}": value for seed, value in line.values.items()}
            for block, table, line in lines
        ),
    )


def to_json(table: Table, notes: Sequence[str]) -> str:
    """Return all numbers, also those of every seed."""
    values = asdict(table) | {"notes": list(notes)}
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def from_json(text: str) -> Table:
    """Return the table that `to_json` wrote.

    Raises:
        MetalossError: If it is not such a text.
    """
    try:
        values = json.loads(text)
        lines = tuple(_line(one) for one in values.pop("lines"))
        values.pop("notes", None)
        return Table(**{**values, "lines": lines, "aside": tuple(values["aside"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MetalossError(f"the table is damaged or of another version: {error}") from error


def _line(values: dict[str, Any]) -> Line:
    parts = {name: values[name] and MeanStd(**values[name]) for name in ("final", "best", "valid")}
    seeds = {int(seed): value for seed, value in values["values"].items()}
    return Line(**{**values, **parts, "values": seeds})


def to_text(tables: Mapping[str, Table], notes: Sequence[str]) -> str:
    """Return Markdown: the table of each block under its name, and explanations.

    A table without a name has no heading.
    """
    heads = [f"## {name}\n\n" if name else "" for name in tables]
    parts = [head + to_markdown(shown(t)) for head, t in zip(heads, tables.values(), strict=True)]
    below = dict.fromkeys(line for table in tables.values() for line in legend(table))
    return "\n\n".join([*parts, bullets([*below, *notes])]) + "\n"


def shown(table: Table) -> pd.DataFrame:
    """Return the table as texts with rounded numbers."""
    digits = decimals(table)

    def one(line: Line) -> dict[str, str]:
        tested = ("reference", "") if line.name == table.reference else ("no pairs", "")
        if line.pairs:
            tested = (show_p(line.p), "" if line.p is None else show_p(line.p_holm))
        return {
            "": line.name,
            "n": str(line.n),
            table.metric: "–" if line.final is None else line.final.show(digits),
            "at best validation": "–" if line.best is None else line.best.show(digits),
            "validation": "–" if line.valid is None else f"{line.valid.mean:.{digits}f}",
            "diverged": str(line.diverged),
            "seconds": "–" if line.seconds is None else f"{line.seconds:.1f}",
            "difference": "–" if line.difference is None else f"{line.difference:+.{digits}f}",
            "p": tested[0],
            "p (Holm)": tested[1],
        }

    return pd.DataFrame([one(line) for line in table.lines])


def legend(table: Table) -> list[str]:
    """Return the explanations of the table's columns."""
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
    if any(line.lost for line in table.lines):
        lines.append("runs without a finite number are left out of mean, difference and test")
    return lines


def decimals(table: Table) -> int:
    """Return the number of decimals that shows three or four digits of the largest mean."""
    means = [abs(line.final.mean) for line in table.lines if line.final is not None]
    largest = max(means, default=0.0)
    if largest == 0:
        return 4
    return min(8, max(0, 3 - math.floor(math.log10(largest))))


def _means(line: Line) -> dict[str, float | None]:
    parts = {"": line.final, "best_": line.best, "valid_": line.valid}
    found = {prefix: part for prefix, part in parts.items() if part is not None}
    return {
        f"{prefix}{name}": getattr(part, name)
        for prefix, part in found.items()
        for name in ("mean", "std")
    }
