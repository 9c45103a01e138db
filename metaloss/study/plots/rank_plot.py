"""The picture of mean ranks: a critical difference diagram, after Demšar."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from metaloss.study.plots.style import (
    BLUE,
    FAINT,
    INK,
    SLATE,
    Style,
    new_figure,
    save,
    shorten,
    styled,
)
from metaloss.study.tables.ranks import Ranks, alike
from metaloss.study.tables.render import show_p

# Inches: the margins of the picture, and positions in a panel from its top.
_WIDTH, _TOP, _BOTTOM, _GAP = 9.0, 0.35, 0.3, 0.45
_CD, _AXIS, _BARS, _BAR, _LABEL = 0.45, 0.87, 1.01, 0.095, 0.2
# The most letters of a row's name.
_LONGEST = 32


def plot_ranks(ranks: Mapping[str, Ranks], path: Path, *, reference: str) -> Path:
    """Draw the mean ranks of each group of blocks, one below the other.

    The best row is at the left end of the axis. A bar joins rows without a significant difference
    by Nemenyi's test; the interval above the axis is as long as the critical difference.
    (scikit-posthocs has no such interval, and depends on statsmodels and seaborn.)

    Args:
        ranks: The ranks by label of the group.
        path: The PNG to write.
        reference: The highlighted row.

    Returns:
        ``path``.

    Reference:
        Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006,
        figure 1.
    """
    joined = [alike(list(one.means.values()), one.critical) for one in ranks.values()]
    heights = [
        _labels(spans) + _LABEL * (math.ceil(len(one.means) / 2) - 0.5)
        for one, spans in zip(ranks.values(), joined, strict=True)
    ]
    height = _TOP + sum(heights) + _GAP * (len(heights) - 1) + _BOTTOM
    longest = max(len(shorten(name, _LONGEST)) for one in ranks.values() for name in one.means)
    with styled():
        figure = new_figure(_WIDTH, height)
        # In inches from the left upper corner, with space for every name beside the axis.
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, _WIDTH)
        axes.set_ylim(height, 0)
        top, side = _TOP, 0.75 + 0.072 * longest
        for (label, one), spans, tall in zip(ranks.items(), joined, heights, strict=True):
            _text(axes, 0.13, top, shorten(label, 60), fontsize=10, fontweight="bold")
            _Panel(axes, one, top, side).draw(spans, reference)
            top += tall + _GAP
        words = "mean rank over blocks, 1 is the best · joined: no significant difference (Nemenyi)"
        _text(axes, _WIDTH - 0.13, height - 0.12, words, fontsize=6.5, color=FAINT, ha="right")
        return save(figure, path)


class _Panel:
    """The ranks of one group. ``top``: its upper edge; ``side``: the space beside the axis."""

    def __init__(self, axes: Axes, ranks: Ranks, top: float, side: float):
        self._axes, self._ranks, self._top = axes, ranks, top
        self._left, self._right = side, _WIDTH - side

    def draw(self, spans: Sequence[tuple[int, int]], reference: str) -> None:
        self._scale()
        means = list(self._ranks.means.items())
        half = math.ceil(len(means) / 2)
        for index, (row, mean) in enumerate(means):
            depth = index if index < half else len(means) - 1 - index
            y = self._top + _labels(spans) + _LABEL * depth
            self._row(row, mean, y, left=index < half, own=row == reference)
        for index, (first, last) in enumerate(spans):
            ends = [self._x(means[first][1]) - 0.04, self._x(means[last][1]) + 0.04]
            bar: Style = {"linewidth": 3.2, "color": INK, "solid_capstyle": "butt", "zorder": 4}
            self._axes.plot(ends, [self._top + _BARS + _BAR * index] * 2, **bar)

    def _x(self, rank: float) -> float:
        share = (rank - 1) / (len(self._ranks.means) - 1)
        return self._left + (self._right - self._left) * share

    def _scale(self) -> None:
        axes, ranks, y = self._axes, self._ranks, self._top + _AXIS
        k, n = len(ranks.means), len(ranks.blocks)
        p = "" if ranks.p is None else f" · Friedman p {_p(ranks.p)}"
        faint: Style = {"fontsize": 8, "color": FAINT}
        words = f"{k} rows, {n} blocks{p}"
        _text(axes, _WIDTH - 0.13, self._top, words, fontsize=8.5, color=FAINT, ha="right")
        axes.plot([self._left, self._right], [y, y], color=FAINT, linewidth=0.9)
        _text(axes, self._left - 0.12, y, "best", ha="right", **faint)
        for rank in range(1, k + 1, math.ceil((k - 1) / 16)):
            axes.plot([self._x(rank)] * 2, [y, y - 0.06], color=FAINT, linewidth=0.9)
            _text(axes, self._x(rank), y - 0.15, str(rank), ha="center", **faint)
        # The end of an interval that is longer than the axis is not visible.
        fits = ranks.critical <= k - 1
        end, y = self._x(1 + ranks.critical if fits else k), self._top + _CD
        axes.plot([self._left, end], [y, y], color=BLUE, linewidth=1.8)
        for mark in (self._left, end) if fits else (self._left,):
            axes.plot([mark, mark], [y - 0.05, y + 0.05], color=BLUE, linewidth=1.2)
        words = f"CD = {ranks.critical:.2f}" + ("" if fits else ", longer than the axis")
        _text(axes, (self._left + end) / 2, y - 0.14, words, fontsize=8, color=BLUE, ha="center")

    def _row(self, row: str, mean: float, y: float, *, left: bool, own: bool) -> None:
        side, ha = (-1, "right") if left else (1, "left")
        edge = (self._left if left else self._right) + 0.12 * side
        x, axis = self._x(mean), self._top + _AXIS
        line: Style = {
            "color": BLUE if own else SLATE,
            "linewidth": 1.6 if own else 0.8,
            "zorder": 2,
        }
        color = BLUE if own else INK
        self._axes.plot([x, x, edge], [axis, y, y], **line)
        self._axes.plot([x], [axis], marker="o", markersize=3.5, color=color, zorder=5 + own)
        _text(self._axes, edge + 0.05 * side, y, f"{mean:.2f}", fontsize=8, color=FAINT, ha=ha)
        bold: Style = {"fontsize": 8.5, "fontweight": "bold" if own else "normal"}
        _text(self._axes, edge + 0.44 * side, y, shorten(row, _LONGEST), color=color, ha=ha, **bold)


def _labels(spans: Sequence[tuple[int, int]]) -> float:
    """Return the position of a panel's labels, below its bars."""
    return _BARS + _BAR * len(spans) + 0.16


def _text(axes: Axes, x: float, y: float, words: str, **style: Any) -> None:
    axes.text(x, y, words, **{"va": "center", **style})


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {show_p(p)}"
