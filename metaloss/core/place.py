"""Where a run is: what a plan moves, and which marks it passes."""

from __future__ import annotations

from metaloss.contracts import Plan, Progress


def after(plan: Plan, progress: Progress) -> Progress:
    """Return where a run is after a plan."""
    if plan.phase == "offline":
        return Progress(offline=progress.offline + 1, train=progress.train)
    return Progress(offline=progress.offline, train=progress.train + plan.unroll)


def steps_in(phase: str, progress: Progress) -> int:
    """Return the steps done in a phase."""
    return progress.offline if phase == "offline" else progress.train


def crossed(last: int, now: int, every: int) -> bool:
    """Return whether a multiple of ``every`` lies in (last, now]."""
    return now // every > last // every
