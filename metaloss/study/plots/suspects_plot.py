"""The pictures with the most doubtful labels, each with its given and its suggested label."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from metaloss.study.plots.style import FAINT, VERMILION, new_figure, styled

_COLUMNS = 8
_LONGEST = 18


def picture_of(table: pd.DataFrame, inputs: Tensor) -> bytes | None:
    """Return a PNG of the rows of a table of suspects; None if the inputs are not pictures.

    Args:
        table: The first rows of `Run.suspects`, whose index is the position of each row.
        inputs: The inputs (N, C, H, W) of all training rows.
    """
    if not has_pictures(table, inputs):
        return None
    count = len(table)
    columns = min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    with styled():
        figure = new_figure(1.25 * columns, 1.65 * rows)
        for place, (index, row) in enumerate(table.iterrows()):
            panel = figure.add_subplot(rows, columns, place + 1)
            panel.axis("off")
            panel.imshow(visible(inputs[index].numpy()), cmap="gray", interpolation="nearest")
            given, suggested = (str(row[name])[:_LONGEST] for name in ("given", "suggested"))
            panel.text(0.5, 1.19, given, transform=panel.transAxes, ha="center", size=7.5)
            panel.text(
                0.5,
                1.03,
                f"→ {suggested}",
                transform=panel.transAxes,
                ha="center",
                size=7.5,
                color=VERMILION if given != suggested else FAINT,
            )
        figure.text(0.01, 0.002, "given label, and → suggested label", size=7, color=FAINT)
        figure.subplots_adjust(0.01, 0.03, 0.99, 1 - 0.3 / (1.65 * rows), 0.08, 0.42)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def has_pictures(table: pd.DataFrame, inputs: Any) -> bool:
    """Return whether rows are images with a class, which can be shown beside the suggested one."""
    return getattr(inputs, "ndim", 0) == 4 and inputs.shape[1] in (1, 3) and "given" in table


def visible(image: np.ndarray) -> np.ndarray:
    """Return an image (H, W) or (H, W, 3) from 0 to 1, whatever scaling it has: from (C, H, W)."""
    low, high = image.min(), image.max()
    image = (image - low) / max(high - low, 1e-12)
    return image[0] if len(image) == 1 else image.transpose(1, 2, 0)
