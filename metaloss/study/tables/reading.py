"""What a loss asks of the model, in three numbers: read off its curves, step by step."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metaloss.core.storage.run_folder import CurvesRow, RunFolder
from metaloss.study.tables.table import Group

# Where a label is contradicted, and where nothing is known: probabilities of the labelled class, or
# errors in standard deviations of the target.
CONTRADICTED, UNDECIDED = 0.05, 0.5
FAR, NEAR = 2.5, 0.5
# Below this share of its size a force is nothing, or what differences on a grid leave over.
_NOTHING = 1e-3


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a learned loss pulls, at some steps of training.

    The pull is the force on the labelled class's raw output where the rest of the probability is
    on one other class, ``p (1 − p) (ℓ'(0, 1 − p) − ℓ'(1, p))``: all that training follows. In
    regression it is the slope against the error.

    Attributes:
        steps: (S,) training steps.
        size: (S,) the pull at p = 0.5 (an error of 0.5), relative to the first step: what a
            learning rate could do as well.
        contradicted: (S,) the pull at p = 0.05 relative to the one at p = 0.5: how much a label
            counts that the model is sure is wrong. Cross-entropy 1.9, generalised cross-entropy
            (q = 0.7) 0.38, absolute error 0.19. In regression an error of 2.5 relative to one of
            0.5: squared error 5, absolute error 1.
        rests_at: (S,) the least p ≥ 0.5 with no pull upwards: 1 for cross-entropy, 1 − ε/2 with
            labels smoothed by ε. In regression the error up to which nothing pulls back: 0.
    """

    steps: np.ndarray
    size: np.ndarray
    contradicted: np.ndarray
    rests_at: np.ndarray


def read_loss(run: RunFolder) -> Reading | None:
    """Return what a run's loss asks for over training; None if its curves say nothing.

    Only losses on probabilities that sum to 1 (softmax) and on numbers (identity) are read.
    """
    if run.link not in ("softmax", "identity"):
        return None
    rows = [row for row in run.curves if row.phase == "train"]
    found = [(row.step, *numbers) for row in rows if (numbers := _numbers(row, run.link))]
    if not found:
        return None
    steps, size, contradicted, rests_at = np.array(found, dtype=float).T
    return Reading(
        steps=steps - run.phase_start("train"),
        size=size / size[0],
        contradicted=contradicted,
        rests_at=rests_at,
    )


def readings_of(groups: Sequence[Group]) -> dict[str, list[Reading]]:
    """Return by row what the losses ask for that move while they train; one for each seed."""
    found: dict[str, list[Reading]] = {}
    for group in groups:
        if group.static:
            continue
        some = [reading for run in group.runs.values() if (reading := read_loss(run))]
        if any(np.ptp(one.size) > _NOTHING for one in some):
            found[group.name] = some
    return found


def to_csv(readings: Mapping[str, Sequence[Reading]]) -> str:
    """Return one line for each row, seed in order, and step."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "run", "step", "size", "contradicted", "rests_at"])
    for row, some in readings.items():
        for index, one in enumerate(some):
            numbers = zip(one.steps, one.size, one.contradicted, one.rests_at, strict=True)
            for step, *values in numbers:
                writer.writerow([row, index, int(step), *(f"{value:.6g}" for value in values)])
    return text.getvalue()


def pull(
    grid: np.ndarray, curves: Mapping[str, np.ndarray], link: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return where the pull is known, and the pull there: see `Reading`.

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
