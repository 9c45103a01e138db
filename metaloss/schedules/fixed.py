"""Training under a loss that training does not change."""

from __future__ import annotations

from metaloss.contracts import Plan, Progress, Schedule


class FixedLoss(Schedule):
    """The base of schedules whose training steps leave φ as it is.

    After offline meta-steps, training begins with new weights.

    Example:
        >>> FixedLoss().plan(Progress(train=99), steps=100)
        Plan(phase='train', reset=False, unroll=1, meta_step=False)
        >>> FixedLoss().plan(Progress(train=100), steps=100) is None
        True
    """

    def plan(self, progress: Progress, steps: int) -> Plan | None:
        """Return one plain step at a time."""
        if progress.train >= steps:
            return None
        return Plan(phase="train", reset=progress.train == 0 and self.offline_total() > 0)

    def offline_total(self) -> int:
        """Return 0: there is no offline phase."""
        return 0

    def moves_in(self, phase: str) -> bool:
        """Return whether the phase is the offline one, and there is one."""
        return phase == "offline" and self.offline_total() > 0
