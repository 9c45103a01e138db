"""The schedule of a run with a search: plain training with the loss that was found."""

from __future__ import annotations

from dataclasses import dataclass

from metaloss.contracts import MetaBatch, Progress
from metaloss.schedules.fixed import FixedLoss


@dataclass(frozen=True, kw_only=True)
class Searched(FixedLoss):
    """The offline schedule with a search, whose generations count as the offline steps.

    Example:
        >>> schedule = Searched(generations=20)
        >>> schedule.offline_total(), schedule.plan(Progress(offline=20), steps=100)
        (20, Plan(phase='train', reset=True, unroll=1, meta_step=False))
    """

    generations: int
    meta_batch: MetaBatch = MetaBatch.validation
    jury: float = 0.0

    @property
    def begins(self) -> Progress:
        """The progress after the search, which needs no plans."""
        return Progress(offline=self.generations)

    def offline_total(self) -> int:
        """Return the number of generations."""
        return self.generations
