"""Series for pictures: long ones thinned, those of several seeds brought together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metaloss.core.storage.run_folder import RunFolder
from metaloss.study.tables.table import Group

MOST_POINTS = 800


def thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return at most ``MOST_POINTS`` points: means over neighbours, the ends kept.

    Args:
        steps: (N,) growing.
        values: (N,); NaN where there is no number.

    Example:
        >>> steps, values = thin(np.arange(10_000.0), np.ones(10_000))
        >>> len(steps) <= MOST_POINTS, float(steps[0]), float(steps[-1])
        (True, 0.0, 9999.0)
    """
    if steps.size <= MOST_POINTS:
        return steps, values
    inner = np.array_split(np.arange(1, steps.size - 1), MOST_POINTS - 2)
    parts = [np.array([0]), *inner, np.array([steps.size - 1])]
    means = [_mean(values[part]) for part in parts]
    return np.array([steps[part].mean() for part in parts]), np.array(means)


@dataclass(frozen=True, kw_only=True)
class Band:
    """A metric of one row over training steps.

    Attributes:
        steps: (N,) training steps.
        mean, std: (N,) over seeds; a run that ended sooner counts with its final metric from then
            on. ``std`` is 0 for one seed.
        end: The last step that any of the runs took.
        final: The mean final metric, which is not always the last point: early stopping goes back
            to the best weights.
    """

    steps: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    end: float
    final: float


def band(group: Group, metric: str) -> Band | None:
    """Return the mean and sample deviation over a row's seeds; None if nothing was logged."""
    runs = [(run, *_finite(run, metric)) for run in group.runs.values()]
    runs = [(run, steps, values) for run, steps, values in runs if steps.size]
    if not runs:
        return None
    grid = np.unique(np.concatenate([steps for _, steps, _ in runs]))
    table = np.stack([
        np.where(grid > steps[-1], _final(run, metric, values[-1]), np.interp(grid, steps, values))
        for run, steps, values in runs
    ])  # fmt: skip
    finals = [_final(run, metric, values[-1]) for run, _, values in runs]
    return Band(
        steps=grid,
        mean=table.mean(0),
        std=table.std(0, ddof=1) if len(runs) > 1 else np.zeros_like(grid),
        end=float(grid[-1]),
        final=float(np.mean(finals)),
    )


def pick(count: int, most: int) -> list[int]:
    """Return at most ``most`` indices below ``count``, evenly spread, both ends among them.

    Example:
        >>> pick(41, 5)
        [0, 10, 20, 30, 40]
    """
    return sorted({round(index) for index in np.linspace(0, count - 1, min(count, most))})


def _finite(run: RunFolder, metric: str) -> tuple[np.ndarray, np.ndarray]:
    steps, values = run.series(metric, phase="train")
    kept = np.isfinite(values)
    return steps[kept], values[kept]


def _final(run: RunFolder, metric: str, otherwise: float) -> float:
    value = (run.summary or {}).get("metrics", {}).get(metric)
    usable = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if usable else otherwise


def _mean(values: np.ndarray) -> float:
    finite: Sequence[float] = values[np.isfinite(values)]
    return float(np.mean(finite)) if len(finite) else math.nan
