"""The results of tuning as text: unrounded numbers, and the chosen settings to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from metaloss.study.launch.tuning import Score
from metaloss.study.spec.spec import Study
from metaloss.study.tables.render import bullets, frame_of, to_markdown

_NUMBERS = ("block", "row", "setting", "words", "n", "metric", "mean", "diverged", "chosen")


def numbers(scores: Mapping[str, Sequence[Score]]) -> pd.DataFrame:
    """Return every setting of every block, with unrounded numbers."""
    return frame_of(
        _NUMBERS,
        (
            {"block": block, **vars(one)}
            | {"words": " ".join(one.words), "chosen": "yes" if one.chosen else "no"}
            for block, some in scores.items()
            for one in some
        ),
    )


def to_text(study: Study, scores: Mapping[str, Sequence[Score]]) -> str:
    """Return a Markdown section: the budget, and the chosen words by row and block."""
    every = [one for some in scores.values() for one in some]
    tuned = [row for row in study.rows if row.tune]
    chosen = {
        block: {one.row: _words(one) for one in some if one.chosen}
        for block, some in scores.items()
    }
    rows = [
        {"": row.name} | {block: found.get(row.name, "–") for block, found in chosen.items()}
        for row in tuned
    ]
    below = bullets(
        f"{row.name!r} takes what was chosen for {row.tuned_as!r}"
        for row in study.rows
        if row.tuned_as is not None
    )
    count = f"{len(tuned[0].tune)} settings a row"
    if study.equal == "steps":
        count = "settings of equal cost together for each row"
    budget = f"{count}, {_budget(study, every)}."
    parts = ["## Tuning", budget, to_markdown(pd.DataFrame(rows)), *([below] if below else [])]
    return "\n\n".join(parts) + "\n"


def choices(study: Study, scores: Sequence[Score]) -> list[str]:
    """Return one line for each row with a tuned setting."""
    chosen = {score.row: _words(score) for score in scores if score.chosen}
    lines = []
    for row in study.rows:
        if row.tune:
            how = f"of {len(row.tune)} settings, {_budget(study, scores)}"
            lines.append(f"{row.name!r} is tuned: {chosen[row.name]} ({how})")
        elif row.tuned_as is not None:
            lines.append(f"{row.name!r} is tuned as {row.tuned_as!r}: {chosen[row.tuned_as]}")
    return lines


def unsound(scores: Sequence[Score]) -> list[str]:
    """Return one line for each row without a setting that has a score."""
    return [
        f"{score.row!r}: each of its settings has a run that diverged or has no finite validation "
        "metric; the first one is used"
        for score in scores
        if score.chosen and not score.sound
    ]


def show_seeds(seeds: Iterable[int]) -> str:
    """Return seeds as text, with consecutive ones as a range.

    Example:
        >>> show_seeds((100, 101, 102, 7))
        '7, 100–102'
    """
    ranges: list[list[int]] = []
    for seed in sorted(seeds):
        if ranges and ranges[-1][-1] + 1 == seed:
            ranges[-1][1:] = [seed]
        else:
            ranges.append([seed])
    return ", ".join("–".join(map(str, ends)) for ends in ranges)


def _budget(study: Study, scores: Sequence[Score]) -> str:
    metric = next((score.metric for score in scores if score.metric), "valid/metric")
    name = metric.partition("/")[2]
    rows = "of trusted rows that were held out" if study.folds else ""
    by = f"{name} {rows}" if rows else f"validation {name}"
    return f"seeds {show_seeds(study.tuning_seeds)}, chosen by the {by}"


def _words(score: Score) -> str:
    return " ".join(score.words) or "as listed"
