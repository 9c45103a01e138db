"""The best validation metric of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from metaloss.types import InnerState


@dataclass(kw_only=True)
class Best:
    """The best evaluation so far, by the validation metric.

    Attributes:
        metrics: All metrics of that evaluation; None before the first.
        step: The training step.
        waited: The number of evaluations since then.
        inner: Its θ and buffers; with early stopping also the state of the inner optimizer,
            because training restores it at the end.
    """

    metrics: dict[str, float] | None = None
    step: int = 0
    waited: int = 0
    inner: InnerState | None = None

    def is_beaten_by(self, metrics: Mapping[str, float], name: str, goal: str) -> bool:
        """Return whether metrics are better by ``name``; ``goal``: ``"min"`` or ``"max"``."""
        if self.metrics is None:
            return True
        value, reference = metrics[name], self.metrics[name]
        return value < reference if goal == "min" else value > reference
