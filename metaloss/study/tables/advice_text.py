"""The advice for a task as one paragraph in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from metaloss.study.tables.advice import Advice, Against
from metaloss.study.tables.render import show_p
from metaloss.study.tables.statistics import FEWEST_PAIRS


def paragraph(advice: Advice, *, notes: Sequence[str] = ()) -> str:
    """Return the advice in plain words.

    Args:
        advice: The advice.
        notes: Further sentences, such as where the rows come from.
    """
    name = advice.metric.partition("/")[2]
    setting = " and ".join(advice.words)
    parts = [f"Use {advice.use} ({setting})." if setting else f"Use {advice.use}."]
    spread = "" if advice.std is None else f" ± {show(advice.std)}"
    seeds = f"{advice.n} seeds" if advice.n > 1 else "one seed"
    if advice.lost:
        seeds = f"{advice.n} of {advice.n + advice.lost} seeds; the other runs have no finite value"
    if advice.mean is None:
        parts.append(f"None of its runs has a finite test {name}.")
    else:
        parts.append(f"Its test {name} is {show(advice.mean)}{spread} over {seeds}.")
    if advice.plain is not None and advice.plain.row != advice.other.row:
        parts.append(f"Plain training ({advice.plain.row}) has {_compared(advice.plain, advice)}.")
    parts += _learned(advice)
    if advice.seen is not None and advice.seen.row != (advice.plain and advice.plain.row):
        kind = "without a learned loss " if advice.learned else ""
        parts.append(
            f"On the test rows alone the best other method {kind}is {advice.seen.row}, with "
            f"{_compared(advice.seen, advice)}."
        )
    by, seeds_of = advice.chosen_by["metric"], advice.chosen_by["seeds"]
    assert isinstance(seeds_of, Sequence)
    parts.append(
        f"The choice was made by the {by} on trusted rows that no method saw in these runs (seeds "
        f"{seeds_of[0]} to {seeds_of[-1]}); the test rows took no part in it."
    )
    return " ".join([*parts, *notes])


def _learned(advice: Advice) -> list[str]:
    """Return whether the learned loss is worth it, and how certain that is."""
    other, verdict = advice.other, advice.other.verdict
    numbers = _compared(other, advice)
    if advice.learned:
        parts = [f"The best method without a learned loss, {other.row}, has {numbers}."]
        ends = {
            "better": "So the learned loss is worth it here.",
            "worse": f"The test rows contradict the choice: {other.row} is better on them.",
            "level": f"The test rows do not tell the two apart: {other.row} does as well, and its "
            "steps cost a third.",
        }
    else:
        parts = [f"It is not the learned loss: at equal compute {other.row} has {numbers}."]
        if advice.lead > 0:
            parts.append(
                f"On the trusted rows that one was ahead by {show(advice.lead)}, no more than the "
                f"standard error of {show(advice.error)}, which is too little for its cost."
            )
        ends = {
            "better": "",
            "worse": f"The test rows contradict the choice: {other.row} is better on them.",
            "level": "The test rows do not tell the two apart, but a step of the learned loss "
            "costs three plain ones.",
        }
    if verdict == "level" and other.p is None:
        few = f"{other.pairs} seeds are too few for a test, which needs {FEWEST_PAIRS}."
        return [*parts, few]
    return [*parts, *filter(None, [ends[verdict]])]


def _compared(against: Against, advice: Advice) -> str:
    """Return the other row's number, and by how much the advised row differs from it."""
    if against.mean is None or against.difference is None:
        return "no finite value"
    size = show(abs(against.difference))
    if against.better == against.worse == 0:
        return f"{show(against.mean)}, the same on every seed"
    lower = against.difference < 0
    better = lower is (advice.goal == "min")
    count = against.better if better else against.worse
    word = "lower" if lower else "higher"
    how = f"{advice.use} is {word} by {size}, {'better' if better else 'worse'} on {count} of "
    test = "" if against.p is None else f", p = {show_p(against.p)}"
    lost = f" ({against.lost} of its runs have no finite value)" if against.lost else ""
    return f"{show(against.mean)}{lost}: {how}{against.pairs} seeds{test}"


def show(value: float) -> str:
    """Return a number with three digits.

    Example:
        >>> show(0.060612), show(123.4)
        ('0.0606', '123')
    """
    return f"{value:#.3g}".rstrip(".")
