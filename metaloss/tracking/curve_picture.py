"""The learned loss over training as an image: the picture of ``metaloss plot``."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from metaloss.contracts import LossCurves


def draw(
    events: Sequence[LossCurves], *, offset: int, softmax: bool
) -> np.ndarray[Any, Any] | None:
    """Return the loss and its slope so far, coloured by step, as a uint8 image (H, W, 3).

    None if the last curves are not finite. Earlier ones that are not are left out.

    Args:
        events: The curves of one phase, oldest first; the last one is in the title.
        offset: The number of steps before this phase.
        softmax: Whether the link is softmax; a slope that all targets share then has no effect.
    """
    # By name, because pictures are in a higher layer.
    plots = importlib.import_module("metaloss.study.plots.loss_plot")
    last = events[-1]
    events = [one for one in events if np.isfinite([*one.curves.values()]).all()]
    if not events or events[-1] is not last:
        return None
    kind = "training step" if last.phase == "train" else f"{last.phase} step"
    rows = [(one.step - offset, one.grid, one.curves) for one in events]
    loss = plots.loss_of(rows, phase=last.phase, softmax=softmax)
    return np.asarray(plots.picture_of(loss, f"{kind} {last.step - offset:,}"))
