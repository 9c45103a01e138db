"""What a loss asks of the model, in three numbers: read off its curves, step by step.

The pull is the force on the labelled class's raw output where the rest of the probability is on
one other class, ``p (1 − p) (ℓ'(0, 1 − p) − ℓ'(1, p))``: all that training follows. In regression
it is the slope against the error. The numbers are

- ``size``: the pull at p = 0.5 (an error of 0.5), relative to the first step: what a learning rate
  could do as well.
- ``contradicted``: the pull at p = 0.05 relative to the one at p = 0.5: how much a label counts
  that the model is sure is wrong. Cross-entropy 1.9, generalised cross-entropy (q = 0.7) 0.38,
  absolute error 0.19. In regression an error of 2.5 relative to one of 0.5: squared error 5,
  absolute error 1.
- ``rests_at``: the least p ≥ 0.5 with no pull upwards: 1 for cross-entropy, 1 − ε/2 with labels
  smoothed by ε. In regression the error up to which nothing pulls back: 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from metaloss.core.storage.run_folder import CurvesRow, RunFolder
from metaloss.study.tables.table import Group

NUMBERS = ("size", "contradicted", "rests_at")
# Where a label is contradicted, and where nothing is known: probabilities of the labelled class, or
# errors in standard deviations of the target.
CONTRADICTED, UNDECIDED = 0.05, 0.5
FAR, NEAR = 2.5, 0.5
# Below this share of its size a force is nothing, or what differences on a grid leave over.
_NOTHING = 1e-3


def read_loss(run: RunFolder) -> pd.DataFrame:
    """Return what a run's loss asks for, by training step; no line where its curves say nothing.

    Only losses on probabilities that sum to 1 (softmax) and on numbers (identity) are read.
    """
    rows = [row for row in run.curves if row.phase == "train"]
    start = run.phase_start("train")
    found = [
        (row.step - start, *numbers)
        for row in rows
        if run.link in ("softmax", "identity") and (numbers := _numbers(row, run.link))
    ]
    read = pd.DataFrame(found, columns=["step", *NUMBERS])
    read["size"] /= read["size"].iloc[:1].sum()
    return read


def readings_of(groups: Sequence[Group]) -> pd.DataFrame:
    """Return what the losses ask for that move while they train, by row, run (its place) and step.

    It is empty where no loss does.
    """
    found = []
    for group in groups:
        some = [read for run in group.runs.values() if len(read := read_loss(run))]
        if not group.static and any(np.ptp(one["size"]) > _NOTHING for one in some):
            found += [one.assign(row=group.name, run=place) for place, one in enumerate(some)]
    columns = ["row", "run", "step", *NUMBERS]
    return pd.concat(found)[columns] if found else pd.DataFrame(columns=columns)


def to_csv(readings: pd.DataFrame) -> str:
    """Return one line for each row, run and step."""
    return str(readings.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def pull(
    grid: np.ndarray, curves: Mapping[str, np.ndarray], link: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return where the pull is known, and the pull there.

    Args:
        grid: (G,) equally spaced predictions, symmetric about 0.5 (softmax) or 0 (identity).
        curves: ℓ(t, ·) by label, (G,).
        link: ``"softmax"`` or ``"identity"``.
    """
    slopes = {label: np.gradient(values, grid, edge_order=2) for label, values in curves.items()}
    if link == "identity":
        half = grid.size // 2
        # The loss need not be symmetric: what counts is the mean over both signs of an error.
        return grid[half:], (slopes["t=0"][half:] - slopes["t=0"][half::-1]) / 2
    return grid, grid * (1 - grid) * (slopes["t=0"][::-1] - slopes["t=1"])


def _numbers(row: CurvesRow, link: str) -> tuple[float, float, float] | None:
    wanted = {"t=0"} if link == "identity" else {"t=0", "t=1"}
    if not wanted <= row.curves.keys() or not all(
        np.isfinite(values).all() for values in row.curves.values()
    ):
        return None
    places, force = pull(row.grid, row.curves, link)
    near, far = (NEAR, FAR) if link == "identity" else (UNDECIDED, CONTRADICTED)
    size, other = np.interp([near, far], places, force)
    if not size > 0:
        return None
    if link == "identity":
        first = int(np.argmax(force > _NOTHING * size))
        return size, other / size, float(places[first - 1]) if first > 1 else 0.0
    return size, other / size, _resting(places, force / size)


def _resting(places: np.ndarray, force: np.ndarray) -> float:
    """Return the least p ≥ 0.5 where the force changes its sign, between two points; else 1."""
    gone = (places >= UNDECIDED) & (force < -_NOTHING)
    if not gone.any():
        return 1.0
    last = int(np.argmax(gone))
    before, after = max(float(force[last - 1]), 0.0), float(force[last])
    share = before / (before - after)
    return float(places[last - 1] + share * (places[last] - places[last - 1]))
