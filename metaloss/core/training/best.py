"""The best moment of a run, and the weights that it ends with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from torch import Tensor

from metaloss.core.steps.state import TrainState
from metaloss.types import InnerState

T = TypeVar("T")

CURRENT, AVERAGE = "current", "average"
_PREFIX = "ema_"


@dataclass(kw_only=True)
class Best:
    """The best evaluation so far, by the metric of the jury if there is one, else of validation.

    Attributes:
        metrics: All metrics of that evaluation; None before the first.
        step: The training step.
        waited: The number of evaluations since then.
        inner: Its θ and buffers; with early stopping also the state of the inner optimizer,
            because training restores it at the end.
        weights: Whether θ is the ``"current"`` one of that step, or the ``"average"``.
        rows: (J,) the metric of each row of the jury; None without a jury.
    """

    metrics: dict[str, float] | None = None
    step: int = 0
    waited: int = 0
    inner: InnerState | None = None
    weights: str = CURRENT
    rows: Tensor | None = None

    @property
    def moment(self) -> tuple[int, str]:
        """The step and the kind of weights."""
        return self.step, self.weights


def noted(
    best: Best,
    found: Mapping[str, InnerState],
    metrics: Mapping[str, float],
    rows: Mapping[str, Tensor],
    *,
    by: tuple[str, str],
    step: int,
) -> Best:
    """Return the best evaluation after one more.

    ``found`` are the weights that were evaluated, from :func:`candidates`, with their ``metrics``
    by the names of the journal. ``rows`` has the metric of each row of the jury, if there is one,
    by the kind of weights. ``by``: the metric that decides, and ``"min"`` or ``"max"``.
    """
    name, goal = by
    after = replace(best, waited=best.waited + 1)
    for weights, inner in found.items():
        own = metrics_of(weights, metrics)
        if after.metrics is None or _is_better(own[name], after.metrics[name], goal):
            mine = rows.get(weights)
            after = Best(metrics=own, step=step, inner=inner, weights=weights, rows=mine)
    return after


def _is_better(value: float, reference: float, goal: str) -> bool:
    """Return whether a metric is better than another one; any number is better than NaN."""
    if math.isnan(reference):
        return not math.isnan(value)
    return value < reference if goal == "min" else value > reference


def candidates(state: TrainState) -> dict[str, InnerState]:
    """Return the weights that a run may end with: the current ones, and their moving average."""
    means = state.averages
    if means is None or not means.params:
        return {CURRENT: state.inner}
    average = state.inner._replace(params=means.params, buffers=means.buffers)
    return {CURRENT: state.inner, AVERAGE: average}


def in_journal(weights: str, metrics: Mapping[str, T]) -> dict[str, T]:
    """Return metrics by their names in the journal: those of the average begin with ``ema_``."""
    return {f"{_PREFIX if weights == AVERAGE else ''}{name}": v for name, v in metrics.items()}


def metrics_of(weights: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of one kind of weights out of those of the journal.

    Example:
        >>> metrics_of("average", {"test/error": 0.2, "ema_test/error": 0.1})
        {'test/error': 0.1}
    """
    if weights == AVERAGE:
        prefix = len(_PREFIX)
        return {name[prefix:]: v for name, v in metrics.items() if name.startswith(_PREFIX)}
    return {name: v for name, v in metrics.items() if not name.startswith(_PREFIX)}
