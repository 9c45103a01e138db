"""Frames as CSV, as Markdown and in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from rich import box
from rich.table import Table as RichTable


def frame_of(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Return rows as a frame with these columns; missing values are empty."""
    # As objects, so that whole numbers stay whole if values are missing.
    cells = [[row.get(name) for name in columns] for row in rows]
    return pd.DataFrame(cells, columns=list(columns), dtype=object)


def to_csv(frame: pd.DataFrame) -> str:
    """Return a frame as CSV with unrounded numbers."""
    return str(frame.to_csv(index=False, lineterminator="\n"))


def to_markdown(frame: pd.DataFrame) -> str:
    """Return a frame of texts as Markdown, with the first column left-aligned, the others right.

    Example:
        >>> print(to_markdown(frame_of(["", "n"], [{"": "a row", "n": "5"}])))
        |       | n |
        |-------|--:|
        | a row | 5 |
    """
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (frame, *frame.to_numpy())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]
    rule = "|".join("-" * width + ("-:" if i else "--") for i, width in enumerate(widths))
    head, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, f"|{rule}|", *rest])


def fitting(frame: pd.DataFrame, width: int, first: Sequence[str]) -> pd.DataFrame:
    """Return a frame of texts without as many columns as it takes to fit a terminal.

    Args:
        frame: The texts.
        width: The width of the terminal.
        first: The columns that may be left out, in this order.

    Example:
        >>> frame = frame_of(["", "n", "p"], [{"": "a row", "n": "5", "p": "0.03"}])
        >>> list(fitting(frame, 18, ["p", "n"])), list(fitting(frame, 17, ["p", "n"]))
        (['', 'n', 'p'], ['', 'n'])
    """
    # Three spaces between columns, and one at each edge.
    widths = {name: max(map(len, [name, *frame[name]])) + 3 for name in frame}
    left = [name for name in first if name in frame]
    while left and sum(widths.values()) - 1 > width:
        widths.pop(left.pop(0))
    return frame[list(widths)]


def to_rich(frame: pd.DataFrame, bold: str | None) -> RichTable:
    """Return a frame of texts as a table for a terminal, with the row named ``bold`` in bold."""
    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, title in enumerate(frame):
        shown.add_column(title, justify="right" if index else "left", no_wrap=index > 0)
    for row in frame.to_numpy():
        shown.add_row(*row, style="bold" if row[0] == bold else None)
    return shown


def bullets(lines: Iterable[str]) -> str:
    """Return lines as a Markdown list."""
    return "\n".join(f"- {line}" for line in lines)


def show_p(p: float | None) -> str:
    """Return a p value as text.

    Example:
        >>> show_p(0.03125), show_p(0.00002), show_p(None)
        ('0.031', '2e-05', 'n too small')
    """
    if p is None:
        return "n too small"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"
