"""``metaloss plot``: the pictures of one run, from its journals only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaloss.core.storage.run_folder import RunFolder, read_run
from metaloss.errors import MetalossError
from metaloss.study.plots.loss_plot import loss_figure
from metaloss.study.plots.panels import (
    events_of,
    name_of,
    panels_of,
    phases_of,
    steps_of,
    title_of,
)
from metaloss.study.plots.style import (
    FAINT,
    SLATE,
    SPLITS,
    VIOLET,
    Label,
    Style,
    end_labels,
    heading,
    new_figure,
    save,
    scale_x,
    scale_y,
    short,
    styled,
    thin,
)

_ACTIONS = {
    "restore": "restored the last good state",
    "imitate": "restarted the loss",
    "give up": "gave up",
}


def plot_run(folder: Path, out: Path | None = None) -> list[Path]:
    """Draw a run, finished or not.

    ``learning.png`` has a panel for each number in the journal (the metric, the task loss, the
    learned loss, the meta-gradient, ...), with marks where the guard acted. ``loss.png`` has the
    loss ℓ(t, p) and its slope ∂ℓ/∂p over training.

    Args:
        folder: The run's folder.
        out: The folder to write to; default: the run's folder.

    Returns:
        The written files; a run without loss curves has no ``loss.png``.

    Raises:
        MetalossError: If there is no run, or nothing in its journal yet.
    """
    run = read_run(folder)
    with styled():
        figures = {"learning.png": _learning(run), "loss.png": loss_figure(run, name_of(run))}
        files = [
            save(figure, (out or folder) / name)
            for name, figure in figures.items()
            if figure is not None
        ]
    if not files:
        raise MetalossError(f"{folder}: its journal holds nothing to draw yet")
    return files


def _learning(run: RunFolder) -> Figure | None:
    panels = panels_of(run)
    if not panels:
        return None
    rows, columns = math.ceil(len(panels) / 2), min(2, len(panels))
    remarks = _remarks(run)
    top = 0.95 if remarks else 0.75
    height = top + 2.4 * rows - 0.15
    figure = new_figure(9 if columns > 1 else 6, height)
    heading(figure, name_of(run), remarks, VIOLET)
    for index, (quantity, names) in enumerate(panels.items()):
        row, column = divmod(index, 2)
        left, width = ((0.06, 0.56)[column], 0.33) if columns > 1 else (0.1, 0.74)
        bottom = 1 - (top + 2.4 * row + 1.6) / height
        axes = figure.add_axes((left, bottom, width, 1.6 / height))
        axes.set_title(title_of(quantity))
        _panel(axes, run, names)
    return figure


def _panel(axes: Axes, run: RunFolder, names: Sequence[str]) -> None:
    phases = phases_of(run, names)
    label, offsets = steps_of(run, phases)
    lines: list[tuple[str, np.ndarray, np.ndarray]] = []
    for name in names:
        # One line for each phase, because the end of one is not connected to the start of the next.
        for phase in phases:
            steps, values = run.series(name, phase=phase)
            if np.isfinite(values).any():
                lines.append((name, *thin(steps + offsets[phase], values)))
    scale_y(axes, [values for _, _, values in lines])
    last: dict[str, Label] = {}
    for name, steps, values in lines:
        split = name.partition("/")[0]
        color = SPLITS.get(split, SLATE)
        axes.plot(steps, values, "-" if steps.size > 1 else "o", color=color, markersize=4)
        end = float(values[np.isfinite(values)][-1])
        last[name] = Label(text=f"{split}  {short(end)}", y=end, color=color)
    right = max(float(steps[-1]) for _, steps, _ in lines)
    alone = len(phases) == 1
    left = 0.0 if alone else min(float(steps[0]) for _, steps, _ in lines)
    scale_x(axes, left, right, label)
    if not alone:
        _mark_phases(axes, run)
    _mark_guard(axes, run, offset=run.phase_start(phases[0]) if alone else 0)
    end_labels(axes, right, list(last.values()))


def _mark_phases(axes: Axes, run: RunFolder) -> None:
    low, high = axes.get_xlim()
    for phase in ("start", "offline"):
        steps = [row.step for row in run.journal if row.phase == phase]
        begin, end = max(low, min(steps, default=0)), min(high, max(steps, default=0))
        if end > begin:
            axes.axvspan(begin, end, color=SLATE, alpha=0.1, linewidth=0)
            axes.text(
                (begin + end) / 2,
                0.97,
                phase,
                transform=axes.get_xaxis_transform(),
                color=FAINT,
                fontsize=7.5,
                ha="center",
                va="top",
                zorder=5,
                bbox={"facecolor": "#f1f2f4", "edgecolor": "none", "pad": 1.2},
            )


def _mark_guard(axes: Axes, run: RunFolder, *, offset: int) -> None:
    low, high = axes.get_xlim()
    above: Style = {"transform": axes.get_xaxis_transform(), "color": VIOLET, "clip_on": False}
    for event in events_of(run):
        step = event.get("step")
        if isinstance(step, int | float) and low <= step - offset <= high:
            axes.axvline(step - offset, color=VIOLET, linewidth=1, linestyle=(0, (1, 1.5)))
            axes.plot(step - offset, 1.0, "v", markersize=5, **above)


def _remarks(run: RunFolder) -> str:
    """Return one line on what is unusual about a run."""
    words = []
    if run.summary is None:
        words.append("not finished")
    elif run.summary.get("status") != "ok":
        words.append(str(run.summary.get("status")))
    counts = Counter(str(event.get("action", "acted")) for event in events_of(run))
    done = [
        _ACTIONS.get(action, action) + (f" ×{count}" if count > 1 else "")
        for action, count in counts.items()
    ]
    return "   ".join([*words, *([f"▼ guard: {', '.join(done)}"] if done else [])])
