"""What follows a search: plain training with the loss that was found."""

from __future__ import annotations

from dataclasses import dataclass

from metaloss.contracts import MetaBatch, Plan, Progress, Schedule


@dataclass(frozen=True, kw_only=True)
class Searched(Schedule):
    """The offline schedule where φ is found by a search: its generations are the offline steps.

    Example:
        >>> schedule = Searched(generations=20)
        >>> schedule.offline_total(), schedule.plan(Progress(offline=20), steps=100)
        (20, Plan(phase='train', reset=True, unroll=1, meta_step=False))
    """

    generations: int
    meta_batch: MetaBatch = MetaBatch.validation

    @property
    def begins(self) -> Progress:
        """After the search, which is no plan's."""
        return Progress(offline=self.generations)

    def plan(self, progress: Progress, steps: int) -> Plan | None:
        """Return one plain step at a time; the search is over by then."""
        assert progress.offline == self.generations
        if progress.train >= steps:
            return None
        return Plan(phase="train", reset=progress.train == 0)

    def offline_total(self) -> int:
        """Return the number of generations."""
        return self.generations

    def moves_in(self, phase: str) -> bool:
        """Return whether the phase is the offline one."""
        return phase == "offline"
