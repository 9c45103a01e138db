"""The picture of mean ranks: a critical difference diagram, after Demšar."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from metaloss.study.plots.style import BLUE, FAINT, INK, SLATE, new_figure, save, styled
from metaloss.study.tables.ranks import Ranks, not_told_apart
from metaloss.study.tables.render import show_p

# Inches.
_WIDTH, _SIDE, _TOP, _BOTTOM = 9.0, 2.75, 0.2, 0.3
_HEAD, _CD, _BAR, _LABEL, _GAP = 0.3, 0.42, 0.095, 0.2, 0.3


def plot_ranks(ranks: Mapping[str, Ranks], path: Path, *, reference: str) -> Path:
    """Draw the mean ranks of each group of blocks, one below the other.

    The best row is at the left end of the axis. A bar joins rows that Nemenyi's test does not tell
    apart; the interval above the axis is as long as the critical difference.

    Args:
        ranks: By the group's label.
        path: The PNG to write.
        reference: The row that stands out.

    Returns:
        ``path``.

    Reference:
        Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006,
        figure 1.
    """
    panels = [_Panel(label, found, reference) for label, found in ranks.items()]
    height = _TOP + sum(panel.height for panel in panels) + _GAP * (len(panels) - 1) + _BOTTOM
    with styled():
        figure = new_figure(_WIDTH, height)
        top = _TOP
        for panel in panels:
            panel.draw(_Paper(figure, top))
            top += panel.height + _GAP
        words = "mean rank over blocks, 1 is the best · joined: not told apart (Nemenyi)"
        figure.text(0.985, 0.1 / height, words, fontsize=6.5, color=FAINT, ha="right")
        return save(figure, path)


class _Paper:
    """Draws on a figure in inches from its left edge and downwards from ``top``."""

    def __init__(self, figure: Figure, top: float):
        self._axes = figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        width, height = figure.get_size_inches()
        self._axes.set_xlim(0, width)
        self._axes.set_ylim(height - top, -top)

    def line(self, xs: list[float], ys: list[float], **style: Any) -> None:
        self._axes.plot(xs, ys, **style)

    def text(self, x: float, y: float, words: str, **style: Any) -> None:
        self._axes.text(x, y, words, **{"va": "center", **style})


class _Panel:
    def __init__(self, label: str, ranks: Ranks, reference: str):
        self._label, self._ranks, self._reference = label, ranks, reference
        self._spans = not_told_apart(list(ranks.means.values()), ranks.critical)
        self._left = math.ceil(len(ranks.means) / 2)
        self._axis = _HEAD + _CD + 0.3
        self._labels = self._axis + 0.14 + _BAR * len(self._spans) + 0.16
        self.height = self._labels + _LABEL * (self._left - 0.5)

    def draw(self, paper: _Paper) -> None:
        self._head(paper)
        self._scale(paper)
        means = list(self._ranks.means.items())
        for index, (row, mean) in enumerate(means):
            left = index < self._left
            depth = index if left else len(means) - 1 - index
            self._row(paper, row, mean, self._labels + _LABEL * depth, left=left)
        for index, (first, last) in enumerate(self._spans):
            y = self._axis + 0.14 + _BAR * index
            ends = [self._x(means[first][1]) - 0.04, self._x(means[last][1]) + 0.04]
            style = {"linewidth": 3.2, "color": INK, "solid_capstyle": "butt", "zorder": 4}
            paper.line(ends, [y, y], **style)

    def _x(self, rank: float) -> float:
        k = len(self._ranks.means)
        return _SIDE + (_WIDTH - 2 * _SIDE) * (rank - 1) / (k - 1)

    def _head(self, paper: _Paper) -> None:
        k, n = len(self._ranks.means), len(self._ranks.blocks)
        words = f"{k} rows, {n} blocks"
        if self._ranks.p is not None:
            words += f" · Friedman p {_p(self._ranks.p)}"
        title = textwrap.shorten(self._label, 60, placeholder=" …")
        paper.text(0.13, _HEAD / 2, title, fontsize=10, fontweight="bold")
        paper.text(_WIDTH - 0.13, _HEAD / 2, words, fontsize=8.5, color=FAINT, ha="right")

    def _scale(self, paper: _Paper) -> None:
        k, critical = len(self._ranks.means), self._ranks.critical
        y = self._axis
        paper.line([self._x(1), self._x(k)], [y, y], color=FAINT, linewidth=0.9)
        paper.text(self._x(1) - 0.12, y, "best", fontsize=8, color=FAINT, ha="right")
        step = math.ceil((k - 1) / 16)
        for rank in range(1, k + 1, step):
            paper.line([self._x(rank)] * 2, [y, y - 0.06], color=FAINT, linewidth=0.9)
            paper.text(self._x(rank), y - 0.15, str(rank), fontsize=8, color=FAINT, ha="center")
        above = _HEAD + _CD - 0.12
        end = min(1 + critical, float(k))
        paper.line([self._x(1), self._x(end)], [above, above], color=BLUE, linewidth=1.8)
        # One that is longer than the axis has no end here.
        for mark in (1.0, end) if critical <= k - 1 else (1.0,):
            paper.line([self._x(mark)] * 2, [above - 0.05, above + 0.05], color=BLUE, linewidth=1.2)
        words = f"CD = {critical:.2f}" + ("" if critical <= k - 1 else ", longer than the axis")
        middle = (self._x(1) + self._x(end)) / 2
        paper.text(middle, above - 0.14, words, fontsize=8, color=BLUE, ha="center")

    def _row(self, paper: _Paper, row: str, mean: float, y: float, *, left: bool) -> None:
        own = row == self._reference
        color = BLUE if own else INK
        edge = _SIDE - 0.12 if left else _WIDTH - _SIDE + 0.12
        x = self._x(mean)
        style = {"color": BLUE if own else SLATE, "linewidth": 1.6 if own else 0.8, "zorder": 2}
        paper.line([x, x, edge], [self._axis, y, y], **style)
        paper.line([x], [self._axis], marker="o", markersize=3.5, color=color, zorder=5 + own)
        weight = "bold" if own else "normal"
        side = -1 if left else 1
        align = "right" if left else "left"
        paper.text(edge + side * 0.05, y, f"{mean:.2f}", fontsize=8, color=FAINT, ha=align)
        paper.text(
            edge + side * 0.44,
            y,
            textwrap.shorten(row, 34, placeholder=" …"),
            fontsize=8.5,
            color=color,
            fontweight=weight,
            ha=align,
        )


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {show_p(p)}"
