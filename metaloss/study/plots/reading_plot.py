"""The picture of three numbers that describe learned losses, over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from metaloss.study.plots.style import (
    BLUE,
    FAINT,
    GREEN,
    PINK,
    SKY,
    VERMILION,
    VIOLET,
    Label,
    end_labels,
    heading,
    new_figure,
    save,
    scale_x,
    scale_y,
    styled,
)

# If there are more rows than colours, the others have dashed lines.
_PENS: list[dict[str, Any]] = [
    {"color": color, "linestyle": style}
    for style in ("solid", (0, (4, 1.2)), (0, (1.2, 1.2)))
    for color in (BLUE, VERMILION, VIOLET, GREEN, PINK, SKY)
]
# For classification and regression: the number, its title, and the values of known losses.
_KNOWN = {"cross-entropy": 1.9, "gce": 0.38, "absolute error": 0.19}
_CLASSES: tuple[tuple[str, str, dict[str, float]], ...] = (
    ("size", "How hard the loss pulls at p = 0.5\n(first step: 1)", {}),
    (
        "contradicted",
        "Pull of a contradicted label (p = 0.05)\n÷ of an undecided one (p = 0.5)",
        _KNOWN,
    ),
    ("rests_at", "Probability at which\nthe loss is content", {}),
)
_NUMBERS: tuple[tuple[str, str, dict[str, float]], ...] = (
    ("size", "How hard the loss pulls at an error of 0.5\n(first step: 1)", {}),
    (
        "contradicted",
        "Pull of an outlier (error 2.5)\n÷ of a usual error (0.5)",
        {"squared error": 5.0, "absolute error": 1.0},
    ),
    ("rests_at", "Error up to which\nthe loss is content", {}),
)

_ABOUT = "error: in standard deviations of the target; medians and quartiles over seeds"


def plot_readings(
    readings: pd.DataFrame, path: Path, *, regression: bool = False, rows: Sequence[str] = ()
) -> Path:
    """Draw the three numbers of the losses of several rows: medians and quartiles over seeds.

    A number that is the same for all has no panel.

    Args:
        readings: The result of `metaloss.study.tables.reading.readings_of`; not empty.
        path: The PNG to write.
        regression: Whether the task is a regression.
        rows: The rows of the whole study, in order: a row then has the same colour in the pictures
            of all blocks. Rows of ``readings`` that are missing here come after them.

    Returns:
        ``path``.
    """
    every = dict(zip(dict.fromkeys([*rows, *readings["row"]]), cycle(_PENS), strict=False))
    pens = {row: every[row] for row in readings["row"].unique()}
    with styled():
        figure = new_figure(9, 3.7)
        about = "p: the probability of the given label; medians and quartiles over seeds"
        heading(figure, "What the learned losses ask for", _ABOUT if regression else about, FAINT)
        panels = [one for one in (_NUMBERS if regression else _CLASSES) if np.ptp(readings[one[0]])]
        # The values of known losses have their names on the right.
        names = [0.105 if known else 0.0 for *_, known in panels]
        left, wide = 0.05, (0.935 - sum(names)) / len(panels) - 0.042
        for (number, title, known), beside in zip(panels, names, strict=True):
            axes = figure.add_axes((left, 0.135, wide, 0.5))
            axes.set_title(title)
            _draw(axes, readings, number, known, pens)
            left += wide + 0.06 + beside
        lines = [Line2D([], [], linewidth=1.7, **pen) for pen in pens.values()]
        place = {"loc": "upper left", "bbox_to_anchor": (0.01, 0.845)}
        figure.legend(lines, pens, ncols=4, fontsize=7.5, frameon=False, **place)
        return save(figure, path)


def _draw(
    axes: Axes,
    readings: pd.DataFrame,
    number: str,
    known: Mapping[str, float],
    pens: Mapping[str, Mapping[str, Any]],
) -> None:
    medians = []
    for row, found in readings.groupby("row", sort=False):
        # At the steps that all runs of the row have.
        runs = found.pivot(index="step", columns="run", values=number).dropna()
        low, middle, high = runs.quantile((0.25, 0.5, 0.75), axis=1).to_numpy()
        axes.fill_between(runs.index, low, high, color=pens[row]["color"], alpha=0.16, linewidth=0)
        axes.plot(runs.index, middle, linewidth=1.7, **pens[row])
        medians.append(middle)
    for value in known.values():
        axes.axhline(value, color=FAINT, linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)
    if number == "size":
        scale_y(axes, medians)
    right = float(readings["step"].max())
    scale_x(axes, 0, right)
    end_labels(axes, right, [Label(text=n, y=y, color=FAINT) for n, y in known.items()], size=6.5)
