"""The picture of a comparison: the metric over training with bands, beside the learned loss."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaloss.study.plots.loss_panels import LossOverTime, color_key, draw_losses, loss_over_time
from metaloss.study.plots.style import (
    BLUE,
    FAINT,
    GOLD,
    GREEN,
    INK,
    PINK,
    SKY,
    SLATE,
    VERMILION,
    VIOLET,
    Label,
    end_labels,
    label_heights,
    new_figure,
    save,
    scale_y,
    styled,
    thousands,
)
from metaloss.study.tables.render import decimals
from metaloss.study.tables.series import Band, band, thin
from metaloss.study.tables.table import Group, Table

_STATIC = (GREEN, PINK, GOLD, SLATE)
_LEARNING = (BLUE, VERMILION, VIOLET, SKY)
# Inches under and over the axes.
_BELOW, _ABOVE = 0.62, 0.64


def plot_comparison(groups: Sequence[Group], table: Table, path: Path, *, title: str = "") -> Path:
    """Draw the learning curves of all rows, and the learned loss of the first that has one.

    Left: the metric's mean ± sample standard deviation over seeds against training steps, each
    line labelled with its final mean; dashed from where the row's last run ended early. Right:
    ℓ(0, p) and ℓ(1, p) over training, from the first seed of the first row whose loss moves while
    it trains.

    Args:
        groups: The rows.
        table: Their table: metric, goal and reference.
        path: The PNG to write.
        title: Shown above; empty: the metric's name.

    Returns:
        ``path``.
    """
    loss, owner = _learned(groups)
    bands = {group.name: found for group in groups if (found := band(group, table.metric))}
    labels = _labels(groups, table, bands)
    size = 8 if len(labels) <= 8 else 6.5
    # As high as the labels need, one above the other: of twenty rows none may leave the picture.
    height = max(4.0, _BELOW + _ABOVE + float(label_heights(labels, size).sum()) / 72)
    low, tall = _BELOW / height, 1 - (_BELOW + _ABOVE) / height
    with styled():
        figure = new_figure(9 if loss else 7.5, height)
        left, wide = (0.065, 0.345) if loss else (0.085, 0.6)
        head = title or f"{table.metric.replace('/', ' ')} over training"
        axes = figure.add_axes((left, low, wide, tall))
        _curves(axes, groups, table, bands)
        end_labels(axes, axes.get_xlim()[1], labels, size=size)
        _heading(figure, left, head[:1].upper() + head[1:])
        if loss is not None:
            left, right, gap = 0.655, 0.935, 0.022
            wide = (right - left + gap) / len(loss.curves) - gap
            panels = [
                figure.add_axes((left + index * (wide + gap), low, wide, tall))
                for index in range(len(loss.curves))
            ]
            draw_losses(panels, loss)
            color_key(figure.add_axes((0.953, low + 0.07 * tall, 0.011, 0.85 * tall)), loss)
            _heading(figure, left, f"The loss of “{textwrap.shorten(owner, 26, placeholder=' …')}”")
            figure.text(0.99, 0.07 / height, loss.remark, fontsize=6.5, color=FAINT, ha="right")
        return save(figure, path)


def _heading(figure: Figure, left: float, text: str) -> None:
    top = 1 - 0.26 / figure.get_figheight()
    figure.text(left, top, text, fontsize=10, fontweight="bold")


def _labels(groups: Sequence[Group], table: Table, bands: Mapping[str, Band]) -> list[Label]:
    colors, digits = _colors(groups, table.reference), max(0, decimals(table) - 1)
    return [
        Label(
            text=f"{_wrapped(name)}  {found.final:.{digits}f}",
            y=found.final,
            color=colors[name],
            bold=name == table.best,
        )
        for name, found in bands.items()
    ]


def _curves(axes: Axes, groups: Sequence[Group], table: Table, bands: Mapping[str, Band]) -> None:
    colors = _colors(groups, table.reference)
    right = max((found.end for found in bands.values()), default=1.0)
    scale_y(axes, [found.mean for found in bands.values()])
    for name, found in bands.items():
        _line(axes, found, colors[name], right, emphasis=name == table.best)
        steps, mean = thin(found.steps, found.mean)
        _, std = thin(found.steps, found.std)
        # Bands of many rows, one over the other, would hide the lines.
        faint = 0.16 if len(bands) <= 8 else 0.06
        axes.fill_between(
            steps, mean - std, mean + std, color=colors[name], alpha=faint, linewidth=0
        )
    several = any(line.n > 1 for line in table.lines)
    words = "mean ± std over seeds" if several else "one seed"
    axes.set_title(f"{table.metric.replace('/', ' ')} ({words})")
    axes.set_xlabel("training step")
    axes.set_xlim(0, right)
    thousands(axes)
    _limit(axes, list(bands.values()))


def _line(axes: Axes, found: Band, color: str, right: float, *, emphasis: bool) -> None:
    steps, mean = thin(found.steps, found.mean)
    order = 4 if emphasis else 3
    axes.plot(steps, mean, color=color, linewidth=2.4 if emphasis else 1.7, zorder=order)
    if found.end < right:
        axes.plot(
            [found.end, right],
            [found.final] * 2,
            color=color,
            linewidth=1.1,
            linestyle=(0, (2, 2)),
            zorder=2,
        )
    # Where the row ends up: early stopping goes back to weights from before.
    axes.plot(
        [found.end],
        [found.final],
        "o",
        color=color,
        markersize=4,
        zorder=order + 1,
        markeredgecolor="white",
        markeredgewidth=0.8,
        clip_on=False,
    )


def _limit(axes: Axes, bands: list[Band]) -> None:
    """Let the lines decide the height of the picture, not the lower edge of a wide band."""
    means = np.concatenate([np.append(found.mean, found.final) for found in bands])
    tops = np.concatenate([found.mean + found.std for found in bands])
    low, high = float(means.min()), float(min(tops.max(), 1.5 * means.max()))
    if axes.get_yscale() == "log":
        axes.set_ylim(low / 1.25, high * 1.15)
    elif high > low:
        room = 0.06 * (high - low)
        axes.set_ylim(low - room, high + room)


def _learned(groups: Sequence[Group]) -> tuple[LossOverTime | None, str]:
    """Return the loss to show and its row: one that moves while it trains, if there is any."""
    found = [
        (loss, group.name)
        for group in groups
        if not group.static and (loss := loss_over_time(next(iter(group.runs.values()))))
    ]
    while_training = [item for item in found if item[0].moves and item[0].phase == "train"]
    moving = [item for item in found if item[0].moves]
    return next(iter(while_training or moving or found), (None, ""))


def _colors(groups: Sequence[Group], reference: str) -> dict[str, str]:
    """Return a colour by row: near black for the reference, strong ones for what learns."""
    static, learning = iter(_STATIC * len(groups)), iter(_LEARNING * len(groups))
    return {
        group.name: INK if group.name == reference else next(static if group.static else learning)
        for group in groups
    }


def _wrapped(name: str) -> str:
    return "\n".join(textwrap.wrap(name, 17)) or name
