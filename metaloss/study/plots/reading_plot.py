"""The picture of what learned losses ask for: three numbers over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

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
    new_figure,
    save,
    styled,
    thousands,
)
from metaloss.study.tables.reading import Reading

# Rows beyond the palette begin it again, dashed.
_PENS: list[dict[str, Any]] = [
    {"color": color, "linestyle": style}
    for style in ("solid", (0, (4, 1.2)), (0, (1.2, 1.2)))
    for color in (BLUE, VERMILION, VIOLET, GREEN, PINK, SKY)
]


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """One of the numbers: its attribute, its title, and what known losses have there."""

    number: str
    title: str
    known: Mapping[str, float]
    log: bool = False


_CLASSES = (
    _Panel(number="size", title="pull at p = 0.5, at first 1", known={}, log=True),
    _Panel(
        number="contradicted",
        title="pull at p = 0.05 ÷ at p = 0.5",
        known={"cross-entropy": 1.9, "gce": 0.38, "absolute error": 0.19},
    ),
    _Panel(number="rests_at", title="p at which nothing pulls up", known={}),
)
_NUMBERS = (
    _Panel(number="size", title="pull at an error of 0.5, at first 1", known={}, log=True),
    _Panel(
        number="contradicted",
        title="pull at an error of 2.5 ÷ at 0.5",
        known={"squared error": 5.0, "absolute error": 1.0},
    ),
    _Panel(number="rests_at", title="error without a pull", known={}),
)


def plot_readings(
    readings: Mapping[str, Sequence[Reading]], path: Path, *, regression: bool = False
) -> Path:
    """Draw what the losses of some rows ask for: medians over seeds, bands of the middle half.

    A number that is the same everywhere has no panel.

    Args:
        readings: By row, those of its seeds; at least one.
        path: The PNG to write.
        regression: Whether they are of a regression.

    Returns:
        ``path``.
    """
    pens = dict(zip(readings, cycle(_PENS), strict=False))
    with styled():
        figure = new_figure(9, 3.1)
        both = _NUMBERS if regression else _CLASSES
        panels = [panel for panel in both if _tells(panel.number, readings)]
        # The one in the middle has names on its right.
        for panel, left in zip(panels, (0.05, 0.345, 0.745), strict=False):
            axes = figure.add_axes((left, 0.16, 0.235, 0.61))
            _draw(axes, panel, readings, pens)
        lines = [Line2D([], [], linewidth=1.7, **pen) for pen in pens.values()]
        figure.legend(lines, pens, loc="upper left", ncols=4, fontsize=7.5, frameon=False)
        return save(figure, path)


def _tells(number: str, readings: Mapping[str, Sequence[Reading]]) -> bool:
    """Return whether a number is not the same all the time."""
    values = np.concatenate([getattr(one, number) for some in readings.values() for one in some])
    return bool(np.ptp(values) > 0)


def _draw(
    axes: Axes,
    panel: _Panel,
    readings: Mapping[str, Sequence[Reading]],
    pens: Mapping[str, Mapping[str, Any]],
) -> None:
    right = max(float(one.steps[-1]) for some in readings.values() for one in some)
    for row, some in readings.items():
        steps, middle, low, high = _quartiles(some, panel.number)
        axes.fill_between(steps, low, high, color=pens[row]["color"], alpha=0.16, linewidth=0)
        axes.plot(steps, middle, linewidth=1.7, **pens[row])
    for value in panel.known.values():
        axes.axhline(value, color=FAINT, linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)
    if panel.log:
        axes.set_yscale("log")
        # Half a decade, which is usual here, has a single power of ten.
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter("")
    axes.set_title(panel.title)
    axes.set_xlabel("training step")
    axes.set_xlim(0, right)
    thousands(axes)
    known = [Label(text=n, y=y, color=FAINT, bold=False) for n, y in panel.known.items()]
    end_labels(axes, right, known, size=6.5)


def _quartiles(some: Sequence[Reading], number: str) -> tuple[np.ndarray, ...]:
    """Return the steps that all have, and the median and quartiles there."""
    steps = sorted(set.intersection(*({*one.steps.tolist()} for one in some)))
    values = np.array(
        [[getattr(one, number)[np.searchsorted(one.steps, step)] for step in steps] for one in some]
    )
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
    return np.array(steps), middle, low, high
