"""The picture of a learned loss over training: ℓ(t, p) and ∂ℓ/∂p, coloured by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from metaloss.core.storage.run_folder import CurvesRow, RunFolder
from metaloss.errors import MetalossError
from metaloss.losses.export import load_loss
from metaloss.study.plots.style import FAINT, STEPS, Style, heading, new_figure, styled, whole

MOST_CURVES = 7
# Panels whose ranges differ by a larger factor have axes of their own.
_MOST_UNLIKE = 5.0
# What the target of a class is.
_MEANING = {"t=0": "t = 0: a class that is not the label", "t=1": "t = 1: the label's class"}
_LONGEST_FORMULA = 100


@dataclass(frozen=True, kw_only=True)
class LossOverTime:
    """A learned loss at a few steps.

    Attributes:
        steps: (S,) steps within the phase.
        grid: (G,) predictions.
        curves: Target label → (S, G) values, without parts that have no effect; see `reduced`.
        phase: ``"train"``, or ``"offline"`` if the loss moves only in that phase.
        softmax: Whether a common slope was subtracted.
    """

    steps: np.ndarray
    grid: np.ndarray
    curves: dict[str, np.ndarray]
    phase: str
    softmax: bool

    @property
    def remark(self) -> str:
        """An explanation of the curves."""
        shared = " and the slope common to both" if self.softmax else ""
        return f"constants{shared} are left out: they have no effect"

    @property
    def in_training(self) -> bool:
        """Whether these are steps of training."""
        return self.phase == "train"

    @property
    def moves(self) -> bool:
        """Whether the loss changes between these steps."""
        return any(not np.allclose(c, c[:1], rtol=1e-6, atol=1e-9) for c in self.curves.values())


def loss_over_time(run: RunFolder, *, most: int = MOST_CURVES) -> LossOverTime | None:
    """Return a run's loss at up to ``most`` steps of training, or offline if it moves only then."""
    moments = (_moments(run, phase, most) for phase in ("train", "offline"))
    found = [one for one in moments if one is not None]
    return next((one for one in found if one.moves), found[0] if found else None)


def loss_figure(run: RunFolder, title: str) -> Figure | None:
    """Return the picture of a run's loss and its slope; None without curves."""
    loss = loss_over_time(run)
    if loss is None:
        return None
    formula = _formula(run.path)
    below = f"{formula}   ({loss.remark})" if formula else loss.remark
    return drawn_figure(loss, title, below)


def picture_of(loss: LossOverTime, title: str) -> np.ndarray:
    """Return the same picture as a uint8 image (H, W, 3)."""
    with styled():
        figure = drawn_figure(loss, title, loss.remark)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def drawn_figure(loss: LossOverTime, title: str, below: str) -> Figure:
    """Return the picture of a loss and its slope, with a line below the title."""
    wide = len(loss.curves) > 1
    figure = new_figure(9 if wide else 6, 6)
    heading(figure, title, below, FAINT)
    left, right, gap = (0.065, 0.93, 0.06) if wide else (0.1, 0.89, 0.0)
    for bottom, slopes in ((0.535, False), (0.09, True)):
        place = (left, bottom, right - left, 0.315)
        draw_losses(figure, place, loss, gap=gap, slopes=slopes, explained=not slopes)
    color_key(figure.add_axes((right + 0.022, 0.2, 0.012, 0.6)), loss)
    return figure


def draw_losses(
    figure: Figure,
    place: tuple[float, float, float, float],
    loss: LossOverTime,
    *,
    gap: float,
    slopes: bool = False,
    explained: bool = False,
) -> None:
    """Draw one panel for each target; with ``slopes``, ∂ℓ/∂p instead of ℓ.

    Args:
        figure: The figure.
        place: Left, bottom, width and height of all panels, as fractions of the figure.
        loss: The curves.
        gap: The gap between two panels.
        slopes: Whether to draw slopes.
        explained: Whether titles say what the targets are; for wide panels.
    """
    left, bottom, width, height = place
    width = (width + gap) / len(loss.curves) - gap
    regression = len(loss.curves) == 1
    variable = "ŷ" if regression else "p"
    norm = _norm(loss)
    drawn: dict[Axes, np.ndarray] = {}
    for index, (label, curves) in enumerate(loss.curves.items()):
        panel = figure.add_axes((left + index * (width + gap), bottom, width, height))
        values = np.gradient(curves, loss.grid, axis=1) if slopes else curves
        for step, curve in zip(loss.steps, values, strict=True):
            last = step == loss.steps[-1]
            panel.plot(
                loss.grid, curve, color=STEPS(norm(step)), lw=2.4 if last else 1.4, zorder=2 + last
            )
        name = f"ℓ({label.removeprefix('t=')}, {variable})"
        name = f"∂{name}/∂{variable}" if slopes else name
        told = explained and not regression and label in _MEANING
        panel.set_title(f"{name}    {_MEANING[label]}" if told else name)
        panel.set_xlabel("prediction ŷ" if regression else "probability p")
        panel.set_xlim(loss.grid[0], loss.grid[-1])
        if not regression:
            panel.set_xlim(0, 1)
            panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        drawn[panel] = values
    # Both may be unbounded at p = 0 and p = 1, so take the size of most of the values.
    usual = 0.92 if slopes else 0.97
    limits = [limits_of([values], usual=usual) for values in drawn.values()]
    heights = [high - low for low, high in limits]
    alike = max(heights) < _MOST_UNLIKE * min(heights)
    for index, panel in enumerate(drawn):
        panel.set_ylim(*(limits_of(list(drawn.values()), usual=usual) if alike else limits[index]))
        panel.tick_params(labelleft=index == 0 or not alike)


def color_key(panel: Axes, loss: LossOverTime) -> None:
    """Draw the colour of each step into a tall, narrow ``panel``."""
    if len(loss.steps) < 2:
        panel.set_axis_off()
        return
    words: Style = {"fontsize": 8, "color": FAINT}
    bar = panel.figure.colorbar(ScalarMappable(_norm(loss), STEPS), cax=panel, ticks=[])
    bar.outline.set_visible(False)
    bar.set_label("training step" if loss.in_training else "offline meta-step", **words)
    panel.set_title(whole(loss.steps[-1]), loc="center", pad=4, **words)
    panel.set_xlabel(whole(loss.steps[0]), labelpad=4, **words)


def _norm(loss: LossOverTime) -> Normalize:
    return Normalize(loss.steps[0], max(loss.steps[-1], loss.steps[0] + 1))


def limits_of(shown: list[np.ndarray], *, usual: float) -> tuple[float, float]:
    """Return the limits of the y-axis of all panels; a few extreme values are cut off.

    Most of the last curve is visible, the others up to 2.5 times the usual size.

    Args:
        shown: (S, G) values of each.
        usual: The quantile of a curve's |values| that is its size.
    """
    sizes = np.max([np.quantile(np.abs(values), usual, axis=1) for values in shown], axis=0)
    cap = max(2.5 * float(np.median(sizes)), 1.05 * float(sizes[-1]))
    low = max(-cap, min(float(values.min()) for values in shown))
    high = min(cap, max(float(values.max()) for values in shown))
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def _moments(run: RunFolder, phase: str, most: int) -> LossOverTime | None:
    rows = [row for row in run.curves if row.phase == phase]
    rows = [row for row in rows if _alike(row, rows[-1])]
    if not rows:
        return None
    offset = run.phase_start(phase)
    moments = [(row.step - offset, row.grid, row.curves) for row in rows]
    return loss_of(moments, phase=phase, softmax=run.link == "softmax", most=most)


def loss_of(
    moments: Sequence[tuple[int, Any, Mapping[str, Any]]],
    *,
    phase: str,
    softmax: bool,
    most: int = MOST_CURVES,
) -> LossOverTime:
    """Return a loss at up to ``most`` steps.

    Args:
        moments: The step in the phase, the grid and the curves by label, oldest first.
        phase: The phase.
        softmax: Whether the link is softmax.
        most: The largest number of steps.
    """
    chosen = [moments[index] for index in pick(len(moments), most)]
    shown = [reduced(np.asarray(grid), curves, softmax=softmax) for _, grid, curves in chosen]
    return LossOverTime(
        steps=np.array([float(step) for step, _, _ in chosen]),
        grid=np.asarray(chosen[0][1]),
        curves={label: np.stack([curves[label] for curves in shown]) for label in shown[0]},
        phase=phase,
        softmax=softmax,
    )


def pick(count: int, most: int) -> list[int]:
    """Return at most ``most`` indices below ``count``, evenly spaced, with both ends.

    Example:
        >>> pick(41, 5)
        [0, 10, 20, 30, 40]
    """
    return sorted({round(index) for index in np.linspace(0, count - 1, min(count, most))})


def reduced(grid: np.ndarray, curves: Mapping[str, Any], *, softmax: bool) -> dict[str, np.ndarray]:
    """Return ℓ(t, ·) by label, (G,), without the parts that have no effect on gradients.

    A constant has no effect: each curve is shifted to 0 at the right answer. With the softmax link,
    a slope that is common to all targets has no effect either, because probabilities sum to 1 and
    Σ_c a p_c = a for every p. It is chosen such that ℓ(0, 0) = ℓ(0, 1). Cross-entropy is then
    ℓ(0, p) = 0 and ℓ(1, p) = −log p.
    """
    tilt = 0.0
    if softmax and "t=0" in curves:
        zero = curves["t=0"]
        tilt = float((zero[-1] - zero[0]) / (grid[-1] - grid[0]))
    found = {}
    for label, values in curves.items():
        curve = np.asarray(values) - tilt * grid
        target = label.removeprefix("t=")
        try:
            right = np.abs(grid - float(target)).argmin()
        except ValueError:  # a label that is not a number
            right = curve.argmin()
        found[label] = curve - curve[right]
    return found


def _alike(row: CurvesRow, other: CurvesRow) -> bool:
    finite = all(np.isfinite(values).all() for values in row.curves.values())
    same = row.grid.shape == other.grid.shape and row.curves.keys() == other.curves.keys()
    return finite and same


def _formula(folder: Path) -> str | None:
    """Return the final loss of a run as a formula; None without one, or if it is too long."""
    try:
        latex = load_loss(folder).latex()
    except MetalossError:
        # Not finished, or from a plugin that is not installed.
        return None
    return None if latex is None or len(latex) > _LONGEST_FORMULA else rf"$\ell(t, p) = {latex}$"
