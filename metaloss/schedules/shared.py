"""Options that several schedules have: one help text, one default and one check each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any

from metaloss.contracts import Schedule
from metaloss.errors import MetalossError, check_range

NEEDS: dict[str, tuple[Callable[[Any], object], str]] = {
    "judge_power": (lambda own: own.judge_at, "schedule.judge_at, such as schedule.judge_at=[1]"),
}
HELP = {
    "meta_batch": "rows that the meta-batches are drawn from",
    "judge_rows": "share of the rows of a meta-batch that the task loss is computed on",
    "judge_at": "inner steps of an unroll after which the task loss is computed too, e.g. [1]",
    "judge_power": "p ≥ 0: the task loss after k of K inner steps has the weight (K/k)^p",
    "train_on": "rows to train on; rows with wrong labels are in train",
    "jury": "share of the trusted rows, in [0, 1), held out for model selection: they choose which "
    "moment's weights the run ends with; 0: none",
}


def shared(name: str, **own: Any) -> Any:
    """Return the dataclass field of a shared option, with the default that the contract has.

    A schedule lists its options in the order in which users see them. A base class with fields
    would put the shared ones first. ``own`` may be ``default=…``, for another default.

    Example:
        >>> shared("jury").default, shared("judge_at").default_factory()
        (0.0, [])
    """
    default = own.get("default", getattr(Schedule, name))
    about: dict[str, Any] = {"help": HELP[name]}
    if name in NEEDS:
        about["needs"] = NEEDS[name]
    if isinstance(default, Sequence):
        return field(default_factory=lambda: list(default), metadata=about)
    return field(default=default, metadata=about)


def check_judge_at(schedule: Schedule, longest: int) -> None:
    """Raise if an earlier task loss is not within the longest unroll, or is given twice."""
    places, power = list(schedule.judge_at), schedule.judge_power
    if places and longest == 1:
        raise MetalossError(
            f"schedule.judge_at={places} with unroll=1: expected a longer unroll, such as unroll=25"
        )
    holds = all(1 <= place < longest for place in places) and len({*places}) == len(places)
    check_range(
        "schedule.judge_at", places, holds, f"different inner steps from 1 to {longest - 1}"
    )
    check_range("schedule.judge_power", power, power >= 0, "a number ≥ 0")
