"""What is done about a run that goes wrong: restore, restart the loss, give up. Never silently."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from metaloss.core.steps.state import Snapshot, TrainState, snapshot

# A model this close to the best constant prediction, or worse, has learned nothing.
_NOTHING_LEARNED = 0.02
# Share of training that a model is given to learn something, again after every rung.
_PATIENCE = 0.25


@dataclass(kw_only=True)
class Ladder:
    """Snapshots to go back to, and the rungs that were taken.

    Attributes:
        learns: Whether φ moves at all in this run; a static run goes straight to the end.
        good: The state at the last journal line without a bad step.
        start: The state at the start of the phase.
        events: The rungs taken, for the summary.
        since: Training step of the last rung, from which patience is counted.
        diverged: Whether the run was given up.
    """

    learns: bool
    good: Snapshot
    start: Snapshot
    events: list[dict[str, Any]] = field(default_factory=list)
    since: int = 0
    diverged: bool = False

    def phase_begins(self, state: TrainState) -> None:
        """Remember the state that a phase starts from."""
        self.good = self.start = snapshot(state)

    def all_well(self, state: TrainState) -> None:
        """Remember a state that no bad step led to."""
        self.good = snapshot(state)

    def is_due(self, done: int, steps: int) -> bool:
        """Whether a learning run has had the time to show that it learns something."""
        return self.learns and done >= min(self.since + _PATIENCE * steps, steps)

    def next_rung(self, *, phi_moves: bool) -> str:
        """Return ``"restore"``, ``"imitate"`` or ``"give up"``: each is taken once a run."""
        taken = {event["action"] for event in self.events}
        if self.learns:
            # Where φ is frozen, a smaller η would change nothing.
            if "restore" not in taken and phi_moves and "imitate" not in taken:
                return "restore"
            if "imitate" not in taken:
                return "imitate"
        return "give up"


def learned_nothing(seen: float, constant: float, goal: str = "min") -> bool:
    """Return whether a number is no better than a constant prediction's.

    Args:
        seen: The validation metric, or the validation task loss.
        constant: The same of the best constant prediction; NaN if it is not known, and nothing is
            said then.
        goal: ``"min"`` or ``"max"``.

    Example:
        >>> learned_nothing(0.90, 0.90), learned_nothing(0.10, 0.90)
        (True, False)
    """
    if math.isnan(constant):
        return False
    margin = _NOTHING_LEARNED * abs(constant)
    # Not "seen >= bound": what is not a number has learned nothing either.
    if goal == "min":
        return not seen < constant - margin
    return not seen > constant + margin
