"""The picture of a comparison: learning curves with bands, beside the learned loss."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from metaloss.core.storage.run_folder import RunFolder
from metaloss.study.plots import style
from metaloss.study.plots.loss_plot import LossOverTime, color_key, draw_losses, loss_over_time
from metaloss.study.plots.style import FAINT, INK, PALE, Label, Style, thin, write
from metaloss.study.tables.table import Group, Table
from metaloss.study.tables.table_text import decimals

# More rows than these cannot be told apart: some are named then, the others are pale.
MOST_COLORED, NAMED = 8, 7
# Inches below and above the axes.
_BELOW, _ABOVE = 0.62, 0.64
_SMALL: Style = {"fontsize": 6.5, "color": FAINT}
_PALE = "pale: {} more rows, which the table has"


def plot_comparison(groups: Sequence[Group], table: Table, path: Path, *, title: str = "") -> Path:
    """Draw the learning curves of all rows, and the learned loss of the first that has one.

    Left: the mean ± sample standard deviation of the metric over seeds, against training steps.
    Each line is labelled with its final mean, and dashed after the step at which the row's last run
    ended early. Of more than eight rows, seven are named and the others are pale: see `named`.
    Right: ℓ(0, p) and ℓ(1, p) over training, from the first seed of the first row whose loss moves
    during training.

    Args:
        groups: The rows.
        table: Their table: metric, goal and reference.
        path: The PNG to write.
        title: The title; empty: the name of the metric.

    Returns:
        ``path``.
    """
    loss, owner = _learned(groups)
    bands = {
        group.name: found for group in groups if (found := band(group.runs.values(), table.metric))
    }
    shown = named(table, bands)
    colors = _colors([group for group in groups if group.name in shown], table.reference)
    digits = max(0, decimals(table) - 1)
    labels = [
        Label(
            text="\n".join(textwrap.wrap(name, 17) or [name]) + f"  {found.final:.{digits}f}",
            y=found.final,
            color=colors[name],
            bold=name == table.best,
        )
        for name, found in bands.items()
        if name in shown
    ]
    size = 8 if len(labels) <= 8 else 6.5
    # High enough for all labels one above the other, also of twenty rows.
    height = max(4.0, _BELOW + _ABOVE + float(style.label_heights(labels, size).sum()) / 72)
    low, tall = _BELOW / height, 1 - (_BELOW + _ABOVE) / height
    bold: Style = {"fontsize": 10, "fontweight": "bold"}
    with style.styled():
        figure = style.new_figure(9 if loss else 7.5, height)
        left, wide = (0.065, 0.345) if loss else (0.085, 0.6)
        axes = figure.add_axes((left, low, wide, tall))
        _draw_bands(axes, table, bands, colors)
        style.end_labels(axes, axes.get_xlim()[1], labels, size=size)
        if pale := len(bands) - len(shown):
            write(figure, left * figure.get_figwidth(), -0.11, _PALE.format(pale), **_SMALL)
        head = title or f"{table.metric.replace('/', ' ')} over training"
        write(figure, left * figure.get_figwidth(), 0.22, head[:1].upper() + head[1:], **bold)
        if loss is not None:
            draw_losses(figure, (0.655, low, 0.28, tall), loss, gap=0.022)
            color_key(figure.add_axes((0.953, low + 0.07 * tall, 0.011, 0.85 * tall)), loss)
            head = f"The loss of “{style.shorten(owner, 26)}”"
            write(figure, 0.655 * 9, 0.22, head, **bold)
            write(figure, -0.09, -0.11, loss.remark, **_SMALL)
        return style.save(figure, path)


def named(table: Table, bands: Collection[str]) -> set[str]:
    """Return the rows of a picture that are drawn in colour and named.

    All, if they are few. Else the reference, the first row, the best one, and the best rivals of
    the reference.

    Args:
        table: The table of the rows.
        bands: The names of the rows that can be drawn.
    """
    if len(bands) <= MOST_COLORED:
        return set(bands)
    rivals = [line for line in table.lines if line.name not in table.aside]
    ranked = [line.name for line in sorted(rivals, key=table.standing)]
    wanted = [table.reference, table.lines[0].name, table.best, *ranked]
    return set([name for name in dict.fromkeys(wanted) if name and name in bands][:NAMED])


@dataclass(frozen=True, kw_only=True)
class Band:
    """The metric of one row over training steps.

    Attributes:
        steps: (N,) training steps.
        mean, std: (N,) over seeds. A run that ended early counts with its final metric
            afterwards. ``std`` is 0 for one seed.
        end: The last step of any run.
        final: The mean final metric. It may differ from the last point, because early stopping
            returns to the best weights.
    """

    steps: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    end: float
    final: float


def band(some: Iterable[RunFolder], metric: str) -> Band | None:
    """Return the mean and standard deviation over a row's runs; None if nothing was logged."""
    found, finals = [], []
    for run in some:
        steps, values = run.series(metric, phase="train")
        logged = pd.Series(values, steps).dropna()
        if logged.empty:
            continue
        final = (run.summary or {}).get("metrics", {}).get(metric)
        known = isinstance(final, int | float) and math.isfinite(final)
        finals.append(float(final) if known else logged.iloc[-1])
        found.append(logged)
    if not found:
        return None
    # Linear between two points; the first value before them, the final metric after them.
    runs = pd.concat(found, axis=1, ignore_index=True).sort_index()
    runs = runs.interpolate("index", limit_area="inside").bfill().fillna(dict(enumerate(finals)))
    return Band(
        steps=runs.index.to_numpy(),
        mean=runs.mean(axis=1).to_numpy(),
        std=runs.std(axis=1).fillna(0.0).to_numpy(),
        end=float(runs.index[-1]),
        final=float(np.mean(finals)),
    )


def edges(mean: np.ndarray, std: np.ndarray, *, logarithmic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of a band: mean ± std.

    On a logarithmic axis the lower edge is drawn as far from the mean as the upper one, so that it
    stays positive.
    """
    return mean**2 / (mean + std) if logarithmic else mean - std, mean + std


def _draw_bands(
    axes: Axes, table: Table, bands: Mapping[str, Band], colors: Mapping[str, str]
) -> None:
    right = max((found.end for found in bands.values()), default=1.0)
    style.scale_y(axes, [found.mean for found in bands.values()])
    for name, found in bands.items():
        steps, mean = thin(found.steps, found.mean)
        if name not in colors:
            axes.plot(steps, mean, color=PALE, linewidth=1, zorder=1.5)
            continue
        color, emphasis = colors[name], name == table.best
        _, std = thin(found.steps, found.std)
        ends = edges(mean, std, logarithmic=axes.get_yscale() == "log")
        axes.fill_between(
            steps,
            *ends,
            color=color,
            alpha=0.16 if len(bands) <= MOST_COLORED else 0.08,
            linewidth=0,
        )
        axes.plot(steps, mean, color=color, linewidth=2.4 if emphasis else 1.7, zorder=3 + emphasis)
        if found.end < right:
            dashed: Style = {"linewidth": 1.1, "linestyle": (0, (2, 2)), "zorder": 2}
            axes.plot([found.end, right], [found.final] * 2, color=color, **dashed)
        # The final value: early stopping returns to earlier weights.
        axes.plot(
            [found.end],
            [found.final],
            "o",
            color=color,
            markersize=4,
            zorder=4 + emphasis,
            markeredgecolor="white",
            markeredgewidth=0.8,
            clip_on=False,
        )
    words = "mean ± std over seeds" if any(line.n > 1 for line in table.lines) else "one seed"
    axes.set_title(f"{table.metric.replace('/', ' ')} ({words})")
    style.scale_x(axes, 0, right)
    if not bands:  # nothing was logged, or a journal is missing
        return
    # The limits depend on the lines, not on the lower edge of a wide band.
    means = np.concatenate([np.append(found.mean, found.final) for found in bands.values()])
    tops = np.concatenate([found.mean + found.std for found in bands.values()])
    low, high = float(means.min()), float(min(tops.max(), 1.5 * means.max()))
    if axes.get_yscale() == "log":
        axes.set_ylim(low / 1.25, high * 1.15)
    elif high > low:
        axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))


def _colors(groups: Sequence[Group], reference: str) -> dict[str, str]:
    """Return a colour by row: almost black for the reference, strong ones for learned losses.

    If a kind has more rows than colours, the others have those that the other kind leaves.
    """
    static, learning = style.STATIC, style.LEARNING
    colors: dict[str, str] = {}
    for group in groups:
        first, then = (static, learning) if group.static else (learning, static)
        free = [color for color in (*first, *then[::-1]) if color not in colors.values()]
        colors[group.name] = INK if group.name == reference else free[0]
    return colors


def _learned(groups: Sequence[Group]) -> tuple[LossOverTime | None, str]:
    """Return the loss to show and its row: preferably one that moves during training."""
    found = [
        (loss, group.name)
        for group in groups
        if not group.static and (loss := loss_over_time(next(iter(group.runs.values()))))
    ]
    # The first of the best: one that moves, in training.
    best = max(found, key=lambda item: item[0].moves * (1 + item[0].in_training), default=None)
    return best or (None, "")
