"""How every picture looks: colours that colour-blind eyes tell apart, labels beside their lines."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from metaloss.core.storage.files import write_atomically

DPI = 160
INK, FAINT, GRID = "#222222", "#707070", "#e4e4e4"
# Okabe & Ito's palette, its light members darkened until text in them can be read on white.
BLUE, VERMILION, GREEN, PINK = "#0072b2", "#d55e00", "#008a64", "#b8568e"
GOLD, SLATE, VIOLET, SKY = "#b27c00", "#7d8ca0", "#5d3a9b", "#3a8fc4"
SPLITS = {"train": BLUE, "valid": GOLD, "test": VERMILION, "meta": GREEN, "start": VIOLET}
# Early steps dark, late ones bright; the lightest end of the map would vanish on white.
STEPS = LinearSegmentedColormap.from_list(
    "steps", matplotlib.colormaps["plasma"](np.linspace(0.0, 0.86, 64))
)

_SETTINGS = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.labelsize": 8.5,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": "#b0b0b0",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": "#b0b0b0",
    "ytick.color": "#b0b0b0",
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "text.color": INK,
    "figure.facecolor": "white",
    "mathtext.default": "regular",
}


def styled() -> Any:
    """Return a context in which figures are drawn and saved; settings outside are untouched."""
    return matplotlib.rc_context(_SETTINGS)


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of ``width`` × ``height`` inches that knows of no global state."""
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG; the same picture gives the same bytes."""
    buffer = io.BytesIO()
    # Without this the file would carry the library's version: the same picture, other bytes.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())
    return path


def scale_y(axes: Axes, values: Sequence[np.ndarray]) -> None:
    """Take a log scale where positive values span a factor of six or more."""
    finite = np.concatenate([v[np.isfinite(v)] for v in values]) if values else np.empty(0)
    if finite.size and finite.min() > 0 and finite.max() / finite.min() >= 6:
        axes.set_yscale("log")
        decades = np.log10(finite.max() / finite.min())
        subs = (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="y", which="minor", length=0)


def thousands(axes: Axes) -> None:
    """Show steps as whole numbers with thin thousands separators."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: whole(value)))
    axes.locator_params(axis="x", nbins=5)


def whole(value: float) -> str:
    """Return a whole number with thin thousands separators.

    Example:
        >>> whole(4000.0) == "4\u2009000"
        True
    """
    return f"{value:,.0f}".replace(",", "\u2009")


def short(value: float) -> str:
    """Return a number for a label: two or three significant digits.

    Example:
        >>> short(0.3333), short(0.003333), short(0.00003333), short(12345.0)
        ('0.333', '0.0033', '3.3e-05', '1.23e+04')
    """
    return f"{value:.3g}" if abs(value) >= 0.01 else f"{value:.2g}"


@dataclass(frozen=True, kw_only=True)
class Label:
    """A text beside a line's end at data height ``y``."""

    text: str
    y: float
    color: str
    bold: bool = False


def end_labels(axes: Axes, x: float, labels: Sequence[Label], *, size: float = 8) -> None:
    """Write labels right of data position ``x``: near their heights, never over each other.

    Call it when the axes' limits and place are final.
    """
    labels = [label for label in labels if np.isfinite(label.y)]
    if not labels:
        return
    height = axes.get_window_extent().height * 72 / axes.figure.dpi  # points
    sizes = label_heights(labels, size)
    to_axes = axes.transData + axes.transAxes.inverted()
    wanted = np.array([to_axes.transform((x, label.y))[1] for label in labels])
    placed = spread(np.clip(wanted, 0, 1) * height, sizes, top=height + 4) / height
    start = float(to_axes.transform((x, labels[0].y))[0])
    for label, there, here in zip(labels, placed, wanted, strict=True):
        axes.plot(
            [start + 0.008, start + 0.028, start + 0.04],
            [np.clip(here, 0, 1), there, there],
            transform=axes.transAxes,
            color=label.color,
            linewidth=0.8,
            alpha=0.7,
            clip_on=False,
        )
        axes.text(
            start + 0.05,
            there,
            label.text,
            transform=axes.transAxes,
            color=label.color,
            fontsize=size,
            fontweight="bold" if label.bold else "normal",
            va="center",
            linespacing=1.1,
        )


def label_heights(labels: Sequence[Label], size: float) -> np.ndarray:
    """Return how much room labels of a font size take, in points (N,)."""
    return np.array([(label.text.count("\n") + 1) * size * 1.22 + 2.5 for label in labels])


def spread(wanted: np.ndarray, sizes: np.ndarray, *, top: float) -> np.ndarray:
    """Return centres near ``wanted`` (N,) such that intervals of ``sizes`` (N,) do not overlap.

    Least squares under the constraint, by pooling neighbours that would overlap; then moved into
    [0, top] as far as there is room.

    Example:
        >>> spread(np.array([5.0, 5.0, 20.0]), np.full(3, 4.0), top=30.0)
        array([ 3.,  7., 20.])
    """
    order = np.argsort(wanted, kind="stable")
    # Each block: its members' wanted lower edge of the block, its members, its size.
    blocks: list[tuple[list[float], list[int], float]] = []
    for index in order:
        low = float(wanted[index] - sizes[index] / 2)
        blocks.append(([low], [int(index)], float(sizes[index])))
        while len(blocks) > 1 and _low(blocks[-2], top) + blocks[-2][2] > _low(blocks[-1], top):
            lows, members, size = blocks.pop()
            before_lows, before, before_size = blocks.pop()
            shifted = [value - before_size for value in lows]
            blocks.append((before_lows + shifted, before + members, before_size + size))
    placed = np.empty(len(wanted))
    for block in blocks:
        edge = _low(block, top)
        for member in block[1]:
            placed[member] = edge + sizes[member] / 2
            edge += sizes[member]
    return placed


def _low(block: tuple[list[float], list[int], float], top: float) -> float:
    return float(np.clip(np.mean(block[0]), 0, max(0.0, top - block[2])))
