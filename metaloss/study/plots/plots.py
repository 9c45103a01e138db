"""``metaloss plot``: the pictures of one run, from its journals alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaloss.core.storage.run_folder import PHASES, RunFolder, read_run
from metaloss.errors import MetalossError
from metaloss.losses.export import load_loss
from metaloss.study.plots.loss_panels import color_key, draw_losses, loss_over_time
from metaloss.study.plots.style import (
    FAINT,
    SLATE,
    SPLITS,
    VIOLET,
    Label,
    end_labels,
    new_figure,
    save,
    scale_y,
    short,
    styled,
    thousands,
)
from metaloss.study.tables.series import thin

_HIDDEN = ("rate", "time")
_LONGEST_FORMULA = 100
_TITLES = {
    "task_loss": "task loss",
    "loss": "learned loss",
    "gradient_norm": "norm of the meta-gradient",
    "misfit": "start: misfit to the task loss",
}
_ACTIONS = {
    "restore": "restored the last good state",
    "imitate": "restarted the loss",
    "give up": "gave up",
}


def plot_run(folder: Path, out: Path | None = None) -> list[Path]:
    """Draw a run, finished or not.

    ``learning.png`` has a panel for each number in the journal (the metric, the task loss, the
    learned loss, the meta-gradient, ...), with the guard's interventions marked; ``loss.png`` has
    the loss ℓ(t, p) and its slope ∂ℓ/∂p over training.

    Args:
        folder: The run's folder.
        out: Where to; default: the run's folder.

    Returns:
        The files, those drawn: a run without loss curves has no ``loss.png``.

    Raises:
        MetalossError: If there is no run, or nothing in its journal yet.
    """
    run = read_run(folder)
    out = folder if out is None else out
    files = []
    with styled():
        figure = _learning(run)
        if figure is not None:
            files.append(save(figure, out / "learning.png"))
        figure = _loss(run)
        if figure is not None:
            files.append(save(figure, out / "loss.png"))
    if not files:
        raise MetalossError(f"{folder}: its journal holds nothing to draw yet")
    return files


def _learning(run: RunFolder) -> Figure | None:
    panels = _panels(run)
    if not panels:
        return None
    rows = math.ceil(len(panels) / 2)
    columns = min(2, len(panels))
    remarks = _remarks(run)
    top = 0.95 if remarks else 0.75
    height = top + 2.4 * rows - 0.15
    figure = new_figure(9 if columns > 1 else 6, height)
    _heading(figure, run, remarks, VIOLET)
    for index, (quantity, names) in enumerate(panels.items()):
        row, column = divmod(index, 2)
        left = (0.06, 0.56)[column] if columns > 1 else 0.1
        width = 0.33 if columns > 1 else 0.74
        bottom = 1 - (top + 2.4 * row + 1.6) / height
        axes = figure.add_axes((left, bottom, width, 1.6 / height))
        _panel(axes, run, quantity, names)
    return figure


def _panel(axes: Axes, run: RunFolder, quantity: str, names: Sequence[str]) -> None:
    logged = [row.phase for row in run.journal if any(name in row.numbers for name in names)]
    phases = [phase for phase in PHASES if phase in logged]
    only = phases[0] if len(phases) == 1 else None
    lines: list[tuple[str, np.ndarray, np.ndarray]] = []
    for name in names:
        # One line for each phase: nothing leads from the end of one to the start of the next.
        for phase in phases:
            steps, values = run.series(name, phase=phase)
            if np.isfinite(values).any():
                offset = 0 if only else run.phase_start(phase)
                lines.append((name, *thin(steps + offset, values)))
    scale_y(axes, [values for _, _, values in lines])
    last: dict[str, Label] = {}
    for name, steps, values in lines:
        split = name.partition("/")[0]
        color = SPLITS.get(split, SLATE)
        axes.plot(steps, values, "-" if steps.size > 1 else "o", color=color, markersize=4)
        end = float(values[np.isfinite(values)][-1])
        last[name] = Label(text=f"{split}  {short(end)}", y=end, color=color)
    right = max(float(steps[-1]) for _, steps, _ in lines)
    left = 0.0 if only else min(float(steps[0]) for _, steps, _ in lines)
    axes.set_title(_TITLES.get(quantity, quantity.replace("_", " ")))
    words = {"train": "training step", "offline": "offline meta-step", "start": "step of the start"}
    axes.set_xlabel(words[only] if only else "step, all phases")
    axes.set_xlim(left, max(right, left + 1))
    thousands(axes)
    if not only:
        _mark_phases(axes, run)
    _mark_guard(axes, run, offset=run.phase_start(only) if only else 0)
    end_labels(axes, right, list(last.values()))


def _panels(run: RunFolder) -> dict[str, list[str]]:
    """Return the names that share a panel, by quantity: the metric first, then the losses."""
    panels: dict[str, list[str]] = {}
    order = list(SPLITS)
    for name in run.names():
        split, _, quantity = name.partition("/")
        if quantity and split not in _HIDDEN and np.isfinite(run.series(name)[1]).any():
            panels.setdefault(quantity, []).append(name)
    for names in panels.values():
        names.sort(key=lambda name: [*order, name.partition("/")[0]].index(name.partition("/")[0]))
    known = list(_TITLES)
    ranks = {quantity: known.index(quantity) if quantity in known else -1 for quantity in panels}
    return {quantity: panels[quantity] for quantity in sorted(panels, key=lambda q: (ranks[q], q))}


def _mark_phases(axes: Axes, run: RunFolder) -> None:
    spans = {phase: [row.step for row in run.journal if row.phase == phase] for phase in PHASES}
    low, high = axes.get_xlim()
    for phase, steps in spans.items():
        if not steps or phase == "train":
            continue
        begin, end = max(low, min(steps)), min(high, max(steps))
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
    for event in _events(run):
        step = event.get("step")
        if isinstance(step, int | float) and low <= step - offset <= high:
            axes.axvline(step - offset, color=VIOLET, linewidth=1, linestyle=(0, (1, 1.5)))
            axes.plot(
                step - offset,
                1.0,
                "v",
                transform=axes.get_xaxis_transform(),
                color=VIOLET,
                markersize=5,
                clip_on=False,
            )


def _heading(figure: Figure, run: RunFolder, below: str, color: str) -> None:
    height = figure.get_figheight()
    lines: tuple[tuple[str, float, dict[str, Any]], ...] = (
        (_name(run), 0.27, {"fontsize": 11, "fontweight": "bold"}),
        (below, 0.51, {"fontsize": 8.5, "color": color}),
    )
    for text, inches, style in lines:
        figure.text(0.02, 1 - inches / height, text, va="center", **style)


def _remarks(run: RunFolder) -> str:
    """Return on one line what is out of the ordinary."""
    words = []
    if run.summary is None:
        words.append("not finished")
    elif run.summary.get("status") != "ok":
        words.append(str(run.summary.get("status")))
    counts = Counter(str(event.get("action", "acted")) for event in _events(run))
    if counts:
        done = ", ".join(
            _ACTIONS.get(action, action) + (f" ×{count}" if count > 1 else "")
            for action, count in counts.items()
        )
        words.append(f"▼ guard: {done}")
    return "   ".join(words)


def _loss(run: RunFolder) -> Figure | None:
    loss = loss_over_time(run)
    if loss is None:
        return None
    count = len(loss.curves)
    figure = new_figure(9 if count > 1 else 6, 6)
    formula = _formula(run)
    remark = f"{formula}   ({loss.remark})" if formula else loss.remark
    _heading(figure, run, remark, FAINT)
    left, right, gap = (0.065, 0.93, 0.03) if count > 1 else (0.1, 0.89, 0.0)
    width = (right - left + gap) / count - gap
    for row, slopes in enumerate((False, True)):
        panels = [
            figure.add_axes((left + index * (width + gap), 0.535 - 0.445 * row, width, 0.315))
            for index in range(count)
        ]
        draw_losses(panels, loss, slopes=slopes)
    color_key(figure.add_axes((right + 0.022, 0.2, 0.012, 0.6)), loss)
    return figure


def _formula(run: RunFolder) -> str | None:
    """Return the loss that a run ended with as mathematics, None if it is none or too long."""
    try:
        latex = load_loss(run.path).latex()
    except MetalossError:
        # Not finished yet, or of a plugin that is not here.
        return None
    return None if latex is None or len(latex) > _LONGEST_FORMULA else rf"$\ell(t, p) = {latex}$"


def _name(run: RunFolder) -> str:
    parts = [
        str(chosen["name"])
        for group in ("task", "model", "loss", "schedule")
        if isinstance(chosen := run.config.get(group), dict) and "name" in chosen
    ]
    if "seed" in run.config:
        parts.append(f"seed {run.config['seed']}")
    return " · ".join(parts) or run.path.name


def _events(run: RunFolder) -> list[dict[str, Any]]:
    events = (run.summary or {}).get("guard_events")
    return (
        [event for event in events if isinstance(event, dict)] if isinstance(events, list) else []
    )
