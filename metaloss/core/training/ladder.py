"""What the guard does with a failing run: restore a state, restart the loss, or give up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from metaloss.core.steps.state import Snapshot, TrainState, snapshot

# A model this close to the best constant prediction, or worse, has learned nothing.
_NOTHING_LEARNED = 0.02
# A model must learn something in this share of the training steps, counted again after each action.
_PATIENCE = 0.25


@dataclass(kw_only=True)
class Ladder:
    """States that can be restored, and the actions so far.

    Attributes:
        learns: Whether φ is learned; otherwise the only action is to give up.
        good: The state at the last journal line without a bad step.
        start: The state at the start of the phase.
        events: The actions, for the summary.
        since: The training step of the last action.
        diverged: Whether the guard gave up.
    """

    learns: bool
    good: Snapshot
    start: Snapshot
    events: list[dict[str, Any]] = field(default_factory=list)
    since: int = 0
    diverged: bool = False

    def phase_begins(self, state: TrainState) -> None:
        """Store the state at the start of a phase."""
        self.good = self.start = snapshot(state)

    def all_well(self, state: TrainState) -> None:
        """Store a state without bad steps before it."""
        self.good = snapshot(state)

    def is_due(self, done: int, steps: int) -> bool:
        """Return whether a run has had enough steps to learn something."""
        return self.learns and done >= min(self.since + _PATIENCE * steps, steps)

    def next_rung(self, *, phi_moves: bool) -> str:
        """Return ``"restore"``, ``"imitate"`` or ``"give up"``, each once in a run."""
        taken = {event["action"] for event in self.events}
        if self.learns:
            # If φ is frozen, a smaller η changes nothing.
            if "restore" not in taken and phi_moves and "imitate" not in taken:
                return "restore"
            if "imitate" not in taken:
                return "imitate"
        return "give up"


def learned_nothing(seen: float, constant: float, goal: str = "min") -> bool:
    """Return whether a metric is not better than that of a constant prediction.

    Args:
        seen: The validation metric, or the validation task loss.
        constant: The same for the best constant prediction; NaN if not known. Then the result is
            false.
        goal: ``"min"`` or ``"max"``.

    Example:
        >>> learned_nothing(0.90, 0.90), learned_nothing(0.10, 0.90)
        (True, False)
    """
    if math.isnan(constant):
        return False
    margin = _NOTHING_LEARNED * abs(constant)
    # Not "seen >= bound", because a run with NaN has learned nothing either.
    if goal == "min":
        return not seen < constant - margin
    return not seen > constant + margin
