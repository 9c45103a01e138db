"""The picture of a whole study: blocks × rows, coloured by how far a row is from the reference."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Polygon, Rectangle

from metaloss.study.plots.style import FAINT, GRID, INK, new_figure, save, styled
from metaloss.study.tables.statistics import SIGNIFICANT
from metaloss.study.tables.table import Line, Table, refer

# The palette's blue and vermilion, which colour-blind eyes tell apart, as light as dark text needs:
# its contrast is at least 4.5 (WCAG 2, level AA).
_MAP = LinearSegmentedColormap.from_list("ratio", ["#3f97cc", "#ffffff", "#e2792c"])
# Ratios beyond this factor share its colour: one failed row must not bleach all others.
_WIDEST, _NARROWEST = 4.0, 1.25
# Inches: a cell's width and height, the room below the last panel and between two of them.
_CELL, _LINE, _BOTTOM, _BETWEEN = 0.5, 0.235, 0.82, 0.25
# Letters of a name, of a row or a block; of one line of a row's name.
_LONGEST, _WRAP = 44, 24
# Columns beside the reference in a panel, such that numbers can be read at the width of a page.
_MOST = 12


def plot_overview(
    tables: Mapping[str, Table],
    path: Path,
    *,
    reference: str,
    aside: Collection[str] = (),
    title: str = "",
) -> Path:
    """Draw the mean of every row in every block, as numbers on colours.

    The colour is the ratio of the mean to the reference's on a log scale: blue where the row is
    better, vermilion where it is worse. The best of a block is bold; a triangle marks what is
    significantly worse (▼) or better (▲) than the reference.

    Args:
        tables: One for each block, by name.
        path: The PNG to write.
        reference: The row whose column comes first.
        aside: Rows that come last, apart from the others, and are never the best.
        title: Shown above.

    Returns:
        ``path``.
    """
    columns = _columns(tables, reference, aside)
    panels = _panels(columns, aside)
    labels = _labels(tables)
    tables = {name: _refer(table, reference) for name, table in tables.items()}
    ratios = {name: _ratios(table, reference) for name, table in tables.items()}
    widest = _limit([ratio for found in ratios.values() for ratio in found.values()])
    places = [_places(panel, reference, aside) for panel in panels]
    # Inches: text of 8 points is some 0.06 wide a letter.
    left = 0.35 + 0.058 * max(map(len, labels.values()))
    most = max(max(found.values()) for found in places) + 1
    width = max(7.2, left + most * _CELL + 0.2)
    heads = [0.15 + 0.064 * max(map(_longest_line, panel)) for panel in panels]
    down = _LINE * len(tables)
    height = 0.45 + sum(heads) + len(panels) * (down + _BETWEEN) - _BETWEEN + _BOTTOM
    with styled():
        figure = new_figure(width, height)
        top = 0.45
        for found, head in zip(places, heads, strict=True):
            across = (max(found.values()) + 1) * _CELL
            below = height - top - head - down
            axes = figure.add_axes((left / width, below / height, across / width, down / height))
            axes.set_xlim(0, across / _CELL)
            axes.set_ylim(len(tables), 0)
            axes.set_axis_off()
            for y, (name, table) in enumerate(tables.items()):
                axes.text(-0.12, y + 0.5, labels[name], fontsize=8, ha="right", va="center")
                shades = {
                    row: None if math.isnan(ratio) else float(np.clip(ratio / widest, -1, 1))
                    for row, ratio in ratios[name].items()
                }
                _block(axes, y, table, shades, found, aside)
            _heads(axes, found, reference, aside)
            frame: dict[str, Any] = {"fill": False, "edgecolor": INK, "linewidth": 1.2, "zorder": 5}
            axes.add_patch(Rectangle((0, 0), 1, len(tables), clip_on=False, **frame))
            top += head + down + _BETWEEN
        metrics = dict.fromkeys(table.metric.replace("/", " ") for table in tables.values())
        text = title or f"{', '.join(metrics)} of every row in every block"
        text = text[:1].upper() + text[1:]
        figure.text(0.13 / width, 1 - 0.24 / height, text, fontsize=11, fontweight="bold")
        _key(figure.add_axes((left / width, 0.58 / height, 2.4 / width, 0.1 / height)), widest)
        words = (
            "bold: best of the block   ▼ ▲ significantly worse, better than "
            f"“{_short(reference, _LONGEST)}” (Holm-corrected p < {SIGNIFICANT})   "
            "–: no finite number"
        )
        figure.text(1 - 0.13 / width, 0.1 / height, words, fontsize=7.5, color=FAINT, ha="right")
        return save(figure, path)


def _panels(columns: Sequence[str], aside: Collection[str]) -> list[list[str]]:
    """Return the columns of each panel: the reference, then as many others as can be read.

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


def _labels(tables: Mapping[str, Table]) -> dict[str, str]:
    """Return what each block is called, with its metric where it is not that of most."""
    usual = Counter(table.metric for table in tables.values()).most_common(1)[0][0]
    return {
        name: _short(name, _LONGEST)
        + ("" if table.metric == usual else f" [{table.metric.partition('/')[2]}]")
        for name, table in tables.items()
    }


def _heads(axes: Axes, places: Mapping[str, float], reference: str, aside: Collection[str]) -> None:
    for name, x in places.items():
        axes.text(
            x + 0.5,
            -0.3,
            textwrap.fill(_short(name, _LONGEST), _WRAP),
            fontsize=8,
            fontweight="bold" if name == reference else "normal",
            color=FAINT if name in aside else INK,
            rotation=90,
            ha="center",
            va="bottom",
        )


def _longest_line(name: str) -> int:
    return max(map(len, textwrap.wrap(_short(name, _LONGEST), _WRAP)))


def _columns(tables: Mapping[str, Table], reference: str, aside: Collection[str]) -> list[str]:
    """Return the rows in order: the reference, the others, those aside."""
    names = dict.fromkeys(line.name for table in tables.values() for line in table.lines)
    apart = [name for name in names if name in aside and name != reference]
    others = [name for name in names if name not in aside and name != reference]
    return [reference, *others, *apart]


def _places(columns: Sequence[str], reference: str, aside: Collection[str]) -> dict[str, float]:
    """Return where each column begins, in cells, with a gap around the reference."""
    places, x = {}, 0.0
    for index, name in enumerate(columns):
        before = columns[index - 1] if index else name
        if before == reference != name or (name in aside) != (before in aside):
            x += 0.18
        places[name] = x
        x += 1
    return places


def _refer(table: Table, reference: str) -> Table:
    known = any(line.name == reference for line in table.lines)
    return refer(table, reference) if known and table.reference != reference else table


def _ratios(table: Table, reference: str) -> dict[str, float]:
    """Return log(mean / the reference's mean), turned such that positive is worse.

    NaN where there is no such ratio: a mean is missing, or the two have different signs.
    """
    means = {line.name: math.nan if line.final is None else line.final.mean for line in table.lines}
    base = means.get(reference, math.nan)
    turn = 1 if table.goal == "min" else -1

    def one(mean: float) -> float:
        if mean == base:
            return 0.0
        if not (math.isfinite(mean) and math.isfinite(base)) or mean * base < 0:
            return math.nan
        if mean == 0 or base == 0:
            return turn * math.copysign(math.inf, mean - base)
        # Of two negative numbers the one that is further from zero is the smaller.
        return turn * math.copysign(1.0, base) * math.log(mean / base)

    return {name: one(mean) for name, mean in means.items()}


def _limit(ratios: Sequence[float]) -> float:
    """Return the log ratio that has the full colour."""
    sizes = [abs(ratio) for ratio in ratios if math.isfinite(ratio)]
    widest = max(sizes, default=0.0)
    return float(np.clip(widest, math.log(_NARROWEST), math.log(_WIDEST)))


def _block(
    axes: Axes,
    y: int,
    table: Table,
    shades: Mapping[str, float | None],
    places: Mapping[str, float],
    aside: Collection[str],
) -> None:
    sign = 1 if table.goal == "min" else -1
    finals = {
        line.name: sign * line.final.mean
        for line in table.lines
        if line.final is not None and line.name not in aside
    }
    best = min(finals.values(), default=math.nan)
    # Another panel may have the best of the block.
    for line in (line for line in table.lines if line.name in places):
        x, shade = places[line.name], shades[line.name]
        color = GRID if shade is None else _MAP(0.5 + 0.5 * shade)
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=color, edgecolor="white", linewidth=0.8))
        axes.text(
            x + 0.44,
            y + 0.52,
            "–" if line.final is None else _number(line.final.mean),
            fontsize=7.5,
            fontweight="bold" if finals.get(line.name) == best else "normal",
            ha="center",
            va="center",
        )
        _mark(axes, (x, y), line, sign)


def _mark(axes: Axes, place: tuple[float, float], line: Line, sign: int) -> None:
    if line.p_holm is None or line.p_holm >= SIGNIFICANT or not line.difference:
        return
    (x, y), worse = place, sign * line.difference > 0
    base, tip = (y + 0.4, y + 0.62) if worse else (y + 0.62, y + 0.4)
    corners = [(x + 0.86, base), (x + 0.97, base), (x + 0.915, tip)]
    axes.add_patch(Polygon(corners, closed=True, facecolor=INK, edgecolor="none", zorder=4))


def _key(axes: Axes, widest: float) -> None:
    axes.imshow(
        np.linspace(0, 1, 128)[None], cmap=_MAP, aspect="auto", extent=(-widest, widest, 0, 1)
    )
    axes.set_yticks([])
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    factor = math.exp(widest)
    axes.set_xticks(
        [-widest, 0, widest],
        [f"{factor:.2g}× better", "as the reference", f"{factor:.2g}× worse"],
        fontsize=7,
    )
    axes.tick_params(length=0, pad=2)


def _number(value: float) -> str:
    """Return a mean in at most six characters or so.

    Example:
        >>> [_number(value) for value in (0.012345, 0.51234, 12.3456, 2957.2)]
        ['0.0123', '0.512', '12.3', '2957']
    """
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if -4 <= size < 6:
        return f"{value:.{max(0, 2 - size)}f}" if size < 3 else f"{value:.0f}"
    return f"{value:.1e}"


def _short(text: str, width: int) -> str:
    return textwrap.shorten(text, width, placeholder=" …")
