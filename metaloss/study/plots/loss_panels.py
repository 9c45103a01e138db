"""The learned loss over training: ℓ(t, p) and its slope ∂ℓ/∂p, coloured by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from metaloss.core.storage.run_folder import CurvesRow, RunFolder
from metaloss.study.plots.style import FAINT, STEPS, whole
from metaloss.study.tables.series import pick

MOST_CURVES = 7


@dataclass(frozen=True, kw_only=True)
class LossOverTime:
    """A few moments of a learned loss.

    Attributes:
        steps: (S,) steps within the phase.
        grid: (G,) predictions.
        curves: Target label → (S, G) values, without what moves no gradient: see `reduced`.
        phase: ``"train"``, or ``"offline"`` where the loss moves only then.
        softmax: Whether a common slope was taken out.
    """

    steps: np.ndarray
    grid: np.ndarray
    curves: dict[str, np.ndarray]
    phase: str
    softmax: bool

    @property
    def remark(self) -> str:
        """What must be known to read the curves."""
        if self.softmax:
            return "without constants and the slope that both share: they move no gradient"
        return "without constants: they move no gradient"

    @property
    def moves(self) -> bool:
        """Whether the loss changes over these moments."""
        return any(not np.allclose(c, c[:1], rtol=1e-6, atol=1e-9) for c in self.curves.values())


def loss_over_time(run: RunFolder) -> LossOverTime | None:
    """Return a run's loss at a few moments of training; of the offline phase if frozen then."""
    found = [
        moments for phase in ("train", "offline") if (moments := _moments(run, phase)) is not None
    ]
    return next((moments for moments in found if moments.moves), found[0] if found else None)


def draw_losses(axes: Sequence[Axes], loss: LossOverTime, *, slopes: bool = False) -> None:
    """Draw one panel for each target; with ``slopes`` ∂ℓ/∂p in place of ℓ."""
    norm = _norm(loss)
    regression = len(loss.curves) == 1
    shown = {
        label: np.gradient(values, loss.grid, axis=1) if slopes else values
        for label, values in loss.curves.items()
    }
    for panel, (label, values) in zip(axes, shown.items(), strict=True):
        for step, curve in zip(loss.steps, values, strict=True):
            last = step == loss.steps[-1]
            panel.plot(
                loss.grid,
                curve,
                color=STEPS(norm(step)),
                linewidth=2.4 if last else 1.4,
                zorder=3 if last else 2,
            )
        target = label.removeprefix("t=")
        variable = "ŷ" if regression else "p"
        name = f"ℓ({target}, {variable})"
        panel.set_title(f"∂{name}/∂{variable}" if slopes else name)
        panel.set_xlabel("prediction ŷ" if regression else "probability p")
        panel.set_xlim(loss.grid[0], loss.grid[-1])
        if not regression:
            panel.set_xlim(0, 1)
            panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    # Slopes grow without bound towards p = 0 and p = 1: their size is that of the bulk.
    _share_scale(list(axes), list(shown.values()), usual=0.92 if slopes else 1.0)


def color_key(panel: Axes, loss: LossOverTime) -> None:
    """Draw into a tall, narrow ``panel`` which colour is which step."""
    panel.grid(False)
    panel.set_xticks([])
    panel.spines[:].set_visible(False)
    if len(loss.steps) < 2:
        panel.set_axis_off()
        return
    panel.imshow(
        np.linspace(0, 1, 256)[:, None],
        cmap=STEPS,
        aspect="auto",
        origin="lower",
        extent=(0, 1, loss.steps[0], loss.steps[-1]),
    )
    panel.set_yticks([])
    words: dict[str, Any] = {"size": 8, "color": FAINT, "transform": panel.transAxes}
    for step, y, side in ((loss.steps[0], -0.02, "top"), (loss.steps[-1], 1.02, "bottom")):
        panel.text(0.5, y, whole(step), ha="center", va=side, **words)
    name = "training step" if loss.phase == "train" else "offline meta-step"
    panel.text(1.6, 0.5, name, rotation=90, ha="left", va="center", **words)


def _norm(loss: LossOverTime) -> Normalize:
    return Normalize(loss.steps[0], max(loss.steps[-1], loss.steps[0] + 1))


def _share_scale(axes: list[Axes], shown: list[np.ndarray], *, usual: float) -> None:
    """Give all panels one y-axis, cut where a few values would press the rest into a line.

    The last moment is in view, and others up to 2.5 times the usual size.

    Args:
        axes: The panels.
        shown: (S, G) values of each.
        usual: Quantile over a curve's |values| that counts as its size.
    """
    sizes = np.max([np.quantile(np.abs(values), usual, axis=1) for values in shown], axis=0)
    cap = max(2.5 * float(np.median(sizes)), 1.05 * float(sizes[-1]))
    low = max(-cap, min(float(values.min()) for values in shown))
    high = min(cap, max(float(values.max()) for values in shown))
    room = 0.05 * (high - low) or 1.0
    for panel in axes:
        panel.set_ylim(low - room, high + room)
    for panel in axes[1:]:
        panel.tick_params(labelleft=False)


def _moments(run: RunFolder, phase: str) -> LossOverTime | None:
    rows = [row for row in run.curves if row.phase == phase]
    rows = [row for row in rows if _alike(row, rows[-1])]
    if not rows:
        return None
    chosen = [rows[index] for index in pick(len(rows), MOST_CURVES)]
    offset = run.phase_start(phase)
    shown = [reduced(row, softmax=run.link == "softmax") for row in chosen]
    return LossOverTime(
        steps=np.array([float(row.step - offset) for row in chosen]),
        grid=chosen[0].grid,
        curves={label: np.stack([curves[label] for curves in shown]) for label in shown[0]},
        phase=phase,
        softmax=run.link == "softmax",
    )


def reduced(row: CurvesRow, *, softmax: bool) -> dict[str, np.ndarray]:
    """Return ℓ(t, ·) by label, (G,), without the parts that move no gradient.

    A constant never does: each curve is shifted to 0 at the right answer. With the softmax link
    neither does a slope that all targets share: probabilities sum to 1, so that
    Σ_c a p_c = a for every p. Of all losses that train alike the one with ℓ(0, 0) = ℓ(0, 1) is
    shown: cross-entropy is then ℓ(0, p) = 0 and ℓ(1, p) = −log p.
    """
    grid, tilt = row.grid, 0.0
    if softmax and "t=0" in row.curves:
        zero = row.curves["t=0"]
        tilt = float((zero[-1] - zero[0]) / (grid[-1] - grid[0]))
    return {
        label: _shifted(values - tilt * grid, grid, label) for label, values in row.curves.items()
    }


def _alike(row: CurvesRow, other: CurvesRow) -> bool:
    finite = all(np.isfinite(values).all() for values in row.curves.values())
    return (
        finite and row.grid.shape == other.grid.shape and row.curves.keys() == other.curves.keys()
    )


def _shifted(values: np.ndarray, grid: np.ndarray, label: str) -> np.ndarray:
    try:
        right = float(label.removeprefix("t="))
    except ValueError:
        return values - values.min()
    return values - values[np.abs(grid - right).argmin()]
