"""The table of a finished run: its metrics, then status, time and folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from metaloss.tracking.numbers import number


def print_result(console: Console, summary: Mapping[str, Any], folder: Path) -> None:
    """Print the content of ``summary.json``. No line is cut off, so that paths can be copied."""
    for index, row in enumerate(lined_up(_metrics(summary))):
        _print(console, Text(row, style="" if index else "bold"))
    for name, value in _facts(summary, folder):
        style = "bold red" if (name, value) == ("status", "diverged") else ""
        style = "yellow" if name == "warning" else style
        _print(console, Text.assemble((name.ljust(9), "dim"), (value, style)))


def _metrics(summary: Mapping[str, Any]) -> list[list[str]]:
    final = dict(summary.get("metrics") or {})
    best = dict(summary.get("metrics_at_best_validation") or {})
    step, _ = best.pop("step", None), best.pop("weights", None)
    rows = [["metric", "final", "at best validation"]]
    rows += [[name, _cell(final.get(name)), _cell(best.get(name))] for name in {**final, **best}]
    if not best:
        return [row[:2] for row in rows]
    return [*rows, ["step", _cell(summary.get("steps")), _cell(step)]]


def lined_up(rows: list[list[str]]) -> list[str]:
    """Return rows as lines, with the first column aligned left and the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]))
    return lines


def _facts(summary: Mapping[str, Any], folder: Path) -> list[tuple[str, str]]:
    facts = [("status", str(summary.get("status", "unknown")))]
    if summary.get("learned_nothing"):
        facts.append(("warning", "no better than the best constant prediction"))
    if summary.get("guard_events"):
        facts.append(("guard", f"{len(summary['guard_events'])} events"))
    if ended := summary.get("ended_with"):
        facts.append(("weights", f"{ended['weights']}, of step {ended['step']}{_chosen(ended)}"))
    if summary.get("seconds") is not None:
        facts.append(("seconds", f"{summary['seconds']:.1f}"))
    return [*facts, ("folder", str(folder))]


def _chosen(ended: Mapping[str, Any]) -> str:
    return f", chosen by a {ended['rows']} trusted rows" if "rows" in ended else ""


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else number(value)


def _print(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=True, highlight=False)
