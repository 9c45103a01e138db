"""The style of all pictures: colours for colour-blind readers too, labels beside lines."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy.optimize import isotonic_regression

from metaloss.core.storage.files import write_atomically

# Keyword arguments for matplotlib.
Style = dict[str, Any]
DPI = 160
MOST_POINTS = 800
INK, FAINT, PALE, GRID = "#222222", "#707070", "#cccccc", "#e4e4e4"
# Okabe & Ito's palette, with light colours darkened so that text in them is readable on white.
BLUE, VERMILION, GREEN, PINK = "#0072b2", "#d55e00", "#008a64", "#b8568e"
GOLD, SLATE, VIOLET, SKY = "#b27c00", "#7d8ca0", "#5d3a9b", "#3a8fc4"
STATIC, LEARNING = (GREEN, PINK, GOLD, SLATE), (BLUE, VERMILION, VIOLET, SKY)
SPLITS = {"train": BLUE, "valid": GOLD, "test": VERMILION, "meta": GREEN, "start": VIOLET}
SPLITS |= {"jury": PINK, "ema_valid": SLATE, "ema_test": SKY, "ema_jury": INK}
# Early steps dark, late ones bright, without the light colours, which are pale on white.
STEPS = LinearSegmentedColormap.from_list(
    "steps", matplotlib.colormaps["plasma"](np.linspace(0.0, 0.7, 64))
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
    """Return a context for drawing and saving figures, which leaves other settings unchanged."""
    return matplotlib.rc_context(_SETTINGS)


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of ``width`` × ``height`` inches without global state."""
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG. Equal pictures have equal bytes."""
    buffer = io.BytesIO()
    # Leave out the version of matplotlib, which would change the bytes.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())
    return path


def write(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Write a text ``x`` and ``y`` inches from the left and upper edge; negative: from the other.

    With a negative ``x``, the text ends there.
    """
    width, height = figure.get_size_inches()
    style = {"ha": "right" if x < 0 else "left", "va": "center", **style}
    figure.text((x % width) / width, 1 - (y % height) / height, text, **style)


def heading(figure: Figure, title: str, below: str, color: str) -> None:
    """Write a title and a line below it in the left upper corner."""
    write(figure, 0.18, 0.27, title, fontsize=11, fontweight="bold")
    write(figure, 0.18, 0.51, below, fontsize=8.5, color=color)


def log_marks(finite: np.ndarray) -> tuple[float, ...]:
    """Return the multiples of powers of ten that a log scale marks; empty for a linear scale.

    The scale is logarithmic if positive values span a factor of six or more.
    """
    if not finite.size or finite.min() <= 0 or finite.max() / finite.min() < 6:
        return ()
    return (1.0, 2.0, 5.0) if np.log10(finite.max() / finite.min()) < 2.5 else (1.0,)


def scale_y(axes: Axes, values: Sequence[np.ndarray]) -> None:
    """Use a log scale if `log_marks` has marks for one."""
    finite = np.concatenate([v[np.isfinite(v)] for v in values]) if values else np.empty(0)
    if subs := log_marks(finite):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="y", which="minor", length=0)


def scale_x(axes: Axes, left: float, right: float, label: str = "training step") -> None:
    """Show steps on the x-axis as whole numbers with thin thousands separators."""
    axes.set_xlabel(label)
    axes.set_xlim(left, max(right, left + 1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: whole(value)))
    axes.locator_params(axis="x", nbins=5)


def thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return at most ``MOST_POINTS`` points: means over neighbours, with both ends.

    Args:
        steps: (N,) in ascending order.
        values: (N,); NaN for a missing number.

    Example:
        >>> steps, values = thin(np.arange(10_000.0), np.ones(10_000))
        >>> len(steps) <= MOST_POINTS, float(steps[0]), float(steps[-1])
        (True, 0.0, 9999.0)
    """
    if steps.size <= MOST_POINTS:
        return steps, values
    inner = np.arange(steps.size - 2) * (MOST_POINTS - 2) // (steps.size - 2)
    places = np.concatenate([[-1], inner, [MOST_POINTS]])
    means = pd.DataFrame({"steps": steps, "values": values}).groupby(places).mean()
    return means["steps"].to_numpy(), means["values"].to_numpy()


def whole(value: float) -> str:
    """Return a whole number with thin thousands separators.

    Example:
        >>> whole(4000.0) == "4\u2009000"
        True
    """
    return f"{value:,.0f}".replace(",", "\u2009")


def shorten(text: str, most: int) -> str:
    """Return a text of at most ``most`` letters, cut between words.

    Example:
        >>> shorten("a long name of a row", 12)
        'a long …'
    """
    return textwrap.shorten(text, most, placeholder=" …")


def short(value: float) -> str:
    """Return a number as a label: three significant digits, or two below 0.01.

    Example:
        >>> [short(value) for value in (0.51234, 0.003333, 3.333e-5, 12.3456, 2957.2, 0)]
        ['0.512', '0.0033', '3.3e-05', '12.3', '2957', '0']
    """
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    more = 2 if size >= -2 else 1
    return f"{value:.{max(0, more - size)}f}" if -5 < size < 6 else f"{value:.{more}e}"


@dataclass(frozen=True, kw_only=True)
class Label:
    """A text beside the end of a line, at data height ``y``."""

    text: str
    y: float
    color: str
    bold: bool = False


def end_labels(axes: Axes, x: float, labels: Sequence[Label], *, size: float = 8) -> None:
    """Write labels right of data position ``x``, near their heights and without overlaps.

    Call it when the limits and the position of the axes are final.
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
    """Return the heights of labels of a font size, in points (N,)."""
    return np.array([(label.text.count("\n") + 1) * size * 1.22 + 2.5 for label in labels])


def spread(wanted: np.ndarray, sizes: np.ndarray, *, top: float) -> np.ndarray:
    """Return centres near ``wanted`` (N,) for intervals of ``sizes`` (N,) that do not overlap.

    Least squares under this constraint; within [0, top] if there is enough space.

    Example:
        >>> spread(np.array([5.0, 5.0, 20.0]), np.full(3, 4.0), top=30.0)
        array([ 3.,  7., 20.])
    """
    order = np.argsort(wanted, kind="stable")
    sizes = sizes[order]
    # Lower edges minus the total size below them; these ascend if no intervals overlap.
    below = np.cumsum(sizes) - sizes
    low = isotonic_regression(wanted[order] - sizes / 2 - below).x
    placed = np.empty(len(wanted))
    placed[order] = np.clip(low, 0, max(0.0, top - sizes.sum())) + below + sizes / 2
    return placed
