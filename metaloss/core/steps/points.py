"""Task losses within an unroll, besides the one at its end."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from metaloss.contracts import Schedule
from metaloss.types import Batch, MetaPoint


def points_of(
    schedule: Schedule, judged_on: Sequence[tuple[Batch, Tensor]]
) -> tuple[MetaPoint, ...]:
    """Return the earlier places of an unroll where the task loss is computed as well.

    Args:
        schedule: The schedule, which has their numbers and weights.
        judged_on: A meta-batch and its dropout key for the weights before each of the K steps.
    """
    found = schedule.judged(len(judged_on))
    return tuple(MetaPoint(after, weight, *judged_on[after]) for after, weight in found)
