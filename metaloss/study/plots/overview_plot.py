"""The picture of a whole study: blocks × rows, coloured by the ratio to the reference."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.patches import Polygon, Rectangle

from metaloss.study.plots.style import (
    FAINT,
    GRID,
    INK,
    Style,
    new_figure,
    save,
    short,
    shorten,
    styled,
    write,
)
from metaloss.study.tables.statistics import SIGNIFICANT
from metaloss.study.tables.table import Line, Table, referred

# The palette's blue and vermilion, which colour-blind readers can distinguish, light enough for a
# contrast of dark text of at least 4.5 (WCAG 2, level AA).
_MAP = LinearSegmentedColormap.from_list("ratio", ["#3f97cc", "#ffffff", "#e2792c"])
# Larger ratios have the colour of this factor, so that one failed row does not pale all others.
_WIDEST, _NARROWEST = 4.0, 1.25
# Inches: the width and height of a cell; the space above, below and between the panels.
_CELL, _LINE, _TOP, _BOTTOM, _BETWEEN = 0.52, 0.235, 0.45, 0.82, 0.25
# The most letters of a name, and of one line of a row's name.
_LONGEST, _WRAP = 44, 24
# Columns beside the reference in a panel: few enough to be readable at the width of a page.
_MOST = 12


def plot_overview(tables: Mapping[str, Table], path: Path, *, reference: str) -> Path:
    """Draw the mean of every row in every block, as numbers on colours.

    The colour is the ratio of the mean to the reference's on a log scale: blue where the row is
    better, vermilion where it is worse. The best of a block is bold; a triangle marks what is
    significantly worse (▼) or better (▲) than the reference; a star, a mean without the runs that
    have no finite number. Rows aside have separate columns at the end, and are never the best.

    Args:
        tables: One for each block, by name.
        path: The PNG to write.
        reference: The row in the first column.

    Returns:
        ``path``.
    """
    tables = referred(tables, reference)
    aside = {name for table in tables.values() for name in table.aside} - {reference}
    metrics = Counter(table.metric for table in tables.values())
    usual = metrics.most_common(1)[0][0]
    labels = {
        name: shorten(name, _LONGEST)
        + ("" if table.metric == usual else f" [{table.metric.partition('/')[2]}]")
        for name, table in tables.items()
    }
    ratios = {name: log_ratios(table, reference) for name, table in tables.items()}
    widest = widest_of([ratio for found in ratios.values() for ratio in found.values()])
    norm = Normalize(-widest, widest, clip=True)
    panels = [_places(panel, aside) for panel in _panels(_columns(tables, reference, aside), aside)]
    # Inches: a letter of 8 points is about 0.06 wide.
    left = 0.35 + 0.058 * max(map(len, labels.values()))
    most = max(max(places.values()) for places in panels) + 1
    heads = [0.15 + 0.064 * max(map(_longest_line, places)) for places in panels]
    down = _LINE * len(tables)
    width = max(7.2, left + most * _CELL + 0.2)
    height = _TOP + sum(heads) + len(panels) * (down + _BETWEEN) - _BETWEEN + _BOTTOM
    with styled():
        figure = new_figure(width, height)
        top = _TOP
        for places, head in zip(panels, heads, strict=True):
            across, below = max(places.values()) + 1, height - top - head - down
            place = (left / width, below / height, across * _CELL / width, down / height)
            axes = figure.add_axes(place, xlim=(0, across), ylim=(len(tables), 0))
            axes.set_axis_off()
            for y, (name, table) in enumerate(tables.items()):
                axes.text(-0.12, y + 0.5, labels[name], fontsize=8, ha="right", va="center")
                colors = {
                    row: GRID if math.isnan(ratio) else _MAP(norm(ratio))
                    for row, ratio in ratios[name].items()
                }
                _block(axes, y, table, colors, places)
            _heads(axes, places, reference, aside)
            frame: Style = {"fill": False, "edgecolor": INK, "linewidth": 1.2, "zorder": 5}
            axes.add_patch(Rectangle((0, 0), 1, len(tables), clip_on=False, **frame))
            top += head + down + _BETWEEN
        named = ", ".join(metric.replace("/", " ") for metric in metrics)
        text = f"{named} of every row in every block"
        write(figure, 0.13, 0.2, text[:1].upper() + text[1:], fontsize=11, fontweight="bold")
        key = figure.add_axes((left / width, 0.58 / height, 2.4 / width, 0.1 / height))
        bar = figure.colorbar(ScalarMappable(norm, _MAP), cax=key, orientation="horizontal")
        bar.outline.set_visible(False)
        factor = f"{math.exp(widest):.2g}×"
        ends = [f"{factor} better", "as the reference", f"{factor} worse"]
        bar.set_ticks([-widest, 0, widest], labels=ends)
        bar.ax.tick_params(length=0, pad=2, labelsize=7)
        words = (
            "bold: best of the block   –: no finite number   *: some runs without one\n"
            "▼ ▲ significantly worse, better than "
            f"“{shorten(reference, _LONGEST)}” (Holm-corrected p < {SIGNIFICANT})"
        )
        write(figure, -0.13, -0.2, words, fontsize=7.5, color=FAINT, multialignment="right")
        return save(figure, path)


def _columns(tables: Mapping[str, Table], reference: str, aside: Collection[str]) -> list[str]:
    """Return the rows in order: the reference, the others, those aside."""
    names = dict.fromkeys(line.name for table in tables.values() for line in table.lines)
    return sorted({reference: None, **names}, key=lambda name: (name != reference, name in aside))


def _panels(columns: Sequence[str], aside: Collection[str]) -> list[list[str]]:
    """Return the columns of each panel: the reference, and as many others as are readable.

    Example:
        >>> _panels(["ours", "a", "b"], aside=["b"])
        [['ours', 'a', 'b']]
        >>> [len(panel) for panel in _panels(["ours", *map(str, range(14))], aside=["13"])]
        [8, 7, 2]
    """
    reference, *others = columns
    if len(others) <= _MOST:
        return [[reference, *others]]
    panels = []
    for group in ([n for n in others if n not in aside], [n for n in others if n in aside]):
        if group:
            size = math.ceil(len(group) / math.ceil(len(group) / _MOST))
            starts = range(0, len(group), size)
            panels += [[reference, *group[start : start + size]] for start in starts]
    return panels


def _places(columns: Sequence[str], aside: Collection[str]) -> dict[str, float]:
    """Return the left edges of the columns in cells; gaps beside the reference and rows aside."""
    reference = columns[0]
    places = {reference: 0.0}
    for before, name in pairwise(columns):
        gap = before == reference or (name in aside) != (before in aside)
        places[name] = places[before] + 1 + 0.18 * gap
    return places


def _heads(axes: Axes, places: Mapping[str, float], reference: str, aside: Collection[str]) -> None:
    for name, x in places.items():
        axes.text(
            x + 0.5,
            -0.3,
            textwrap.fill(shorten(name, _LONGEST), _WRAP),
            fontsize=8,
            fontweight="bold" if name == reference else "normal",
            color=FAINT if name in aside else INK,
            rotation=90,
            ha="center",
            va="bottom",
        )


def _longest_line(name: str) -> int:
    return max(map(len, textwrap.wrap(shorten(name, _LONGEST), _WRAP)))


def log_ratios(table: Table, reference: str) -> dict[str, float]:
    """Return log(mean / mean of the reference), with the sign such that positive is worse.

    NaN without such a ratio: if a mean is missing, or the two have different signs.
    """
    means = {line.name: math.nan if line.final is None else line.final.mean for line in table.lines}
    base = means.get(reference, math.nan)

    def one(mean: float) -> float:
        if mean == base:
            return 0.0
        if not (math.isfinite(mean) and math.isfinite(base)) or mean * base < 0:
            return math.nan
        if mean == 0 or base == 0:
            return table.sign * math.copysign(math.inf, mean - base)
        # Of two negative numbers, the one further from zero is smaller.
        return table.sign * math.copysign(1.0, base) * math.log(mean / base)

    return {name: one(mean) for name, mean in means.items()}


def widest_of(ratios: Sequence[float]) -> float:
    """Return the log ratio of the full colour, which larger and infinite ones have as well."""
    widest = max((abs(ratio) for ratio in ratios if math.isfinite(ratio)), default=0.0)
    return float(np.clip(widest, math.log(_NARROWEST), math.log(_WIDEST)))


def _block(
    axes: Axes,
    y: int,
    table: Table,
    colors: Mapping[str, object],
    places: Mapping[str, float],
) -> None:
    best = None if table.best is None else table.standing(table.by_name[table.best])
    # The best row of the block may be in another panel.
    for line in (line for line in table.lines if line.name in places):
        x = places[line.name]
        bold = line in table.rivals and table.standing(line) == best
        cell: Style = {"facecolor": colors[line.name], "edgecolor": "white", "linewidth": 0.8}
        axes.add_patch(Rectangle((x, y), 1, 1, **cell))
        axes.text(
            x + 0.44,
            y + 0.52,
            "–" if line.final is None else short(line.final.mean) + "*" * bool(line.lost),
            fontsize=7.5,
            fontweight="bold" if bold else "normal",
            ha="center",
            va="center",
        )
        _mark(axes, x, y, line, table)


def _mark(axes: Axes, x: float, y: float, line: Line, table: Table) -> None:
    if line.p_holm is None or line.p_holm >= SIGNIFICANT or not line.difference:
        return
    worse = table.sign * line.difference > 0
    lost = line.lost - table.by_name[table.reference].lost
    if lost and worse is not lost > 0:  # a row must not be better because of the runs that it lost
        return
    base, tip = (y + 0.4, y + 0.62) if worse else (y + 0.62, y + 0.4)
    corners = [(x + 0.86, base), (x + 0.97, base), (x + 0.915, tip)]
    axes.add_patch(Polygon(corners, closed=True, facecolor=INK, edgecolor="none", zorder=4))
