"""The learned loss at one step as an image, drawn without global state."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from metaloss.contracts import LossCurves


def draw(event: LossCurves) -> np.ndarray[Any, Any]:
    """Return ℓ(t, p) over p, one line for each target, as a uint8 image (H, W, 3).

    pyplot is not used. So this works in any thread and does not change its backend or figures.
    """
    figure = Figure(figsize=(4.8, 3.2), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for label, values in event.curves.items():
        axes.plot(event.grid, np.where(np.isfinite(values), values, np.nan), label=label)
    axes.set_xlabel("prediction p")
    axes.set_ylabel("learned loss ℓ(t, p)")
    axes.set_title(f"step {event.step} ({event.phase})", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
