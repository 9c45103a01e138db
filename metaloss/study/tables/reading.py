"""Describes a loss by three numbers, which are computed from its curves at every step.

The pull is the negative derivative of the loss in the raw output of the labelled class, if the rest
of the probability is on one other class: ``p (1 − p) (ℓ'(0, 1 − p) − ℓ'(1, p))``. Training depends
on nothing else. In regression the pull is the derivative of the loss in the error. The numbers are

- ``size``: the pull at p = 0.5 (in regression at an error of 0.5), relative to the first step. A
  change of the learning rate has the same effect.
- ``contradicted``: the pull at p = 0.05 relative to the one at p = 0.5. It says how much a label
  counts if the model is sure that it is wrong: 1.9 for cross-entropy, 0.38 for generalised
  cross-entropy (q = 0.7), 0.19 for absolute error. In regression it is the pull at an error of 2.5
  relative to one of 0.5: 5 for squared error, 1 for absolute error.
- ``rests_at``: the smallest p ≥ 0.5 at which there is no pull upwards: 1 for cross-entropy, 1 − ε/2
  with labels smoothed by ε. In regression the largest error without a pull: 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from metaloss.core.storage.run_folder import CurvesRow, RunFolder
from metaloss.study.tables.table import Group

NUMBERS = ("size", "contradicted", "rests_at")
# Where the model contradicts the label, and where it is undecided: probabilities of the labelled
# class, or errors in standard deviations of the target.
CONTRADICTED, UNDECIDED = 0.05, 0.5
FAR, NEAR = 2.5, 0.5
# A pull below this share of its size counts as zero: it may be an error of differences on a grid.
_NOTHING = 1e-3


def read_loss(run: RunFolder) -> pd.DataFrame:
    """Return the three numbers of a run's loss by training step, where its curves have them.

    Only losses with the softmax or the identity link have such numbers.
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
    """Return the numbers of the losses that move in training, by row, index of the run and step.

    The result is empty if no loss moves.
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
    """Return the points at which the pull is known, and the pull there.

    Args:
        grid: (G,) equally spaced predictions, symmetric about 0.5 (softmax) or 0 (identity).
        curves: ℓ(t, ·) by label, (G,).
        link: ``"softmax"`` or ``"identity"``.
    """
    slopes = {label: np.gradient(values, grid, edge_order=2) for label, values in curves.items()}
    if link == "identity":
        half = grid.size // 2
        # A loss may be asymmetric: take the mean over both signs of an error.
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
    """Return the smallest p ≥ 0.5 where the pull changes its sign (interpolated); else 1."""
    gone = (places >= UNDECIDED) & (force < -_NOTHING)
    if not gone.any():
        return 1.0
    last = int(np.argmax(gone))
    before, after = max(float(force[last - 1]), 0.0), float(force[last])
    share = before / (before - after)
    return float(places[last - 1] + share * (places[last] - places[last - 1]))
