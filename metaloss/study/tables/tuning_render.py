"""What a search chose, as CSV, as Markdown and in a line a row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from metaloss.study.launch.tuning import Score
from metaloss.study.spec.spec import Study
from metaloss.study.tables.render import aligned


def scores_to_csv(scores: Mapping[str, Sequence[Score]]) -> str:
    """Return every setting of every block, unrounded; empty where there is no number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["block", "row", "setting", "words", "n", "metric", "mean", "diverged", "chosen"]
    writer.writerow(head)
    for block, some in scores.items():
        for one in some:
            chosen = "yes" if one.chosen else "no"
            numbers = [one.n, one.metric, one.mean, one.diverged, chosen]
            writer.writerow([block, one.row, one.setting, " ".join(one.words), *numbers])
    return text.getvalue()


def choices_to_markdown(study: Study, scores: Mapping[str, Sequence[Score]]) -> str:
    """Return a section: the budget, and the chosen words by row and block."""
    chosen = {
        (block, one.row): _words(one)
        for block, some in scores.items()
        for one in some
        if one.chosen
    }
    tuned = [row for row in study.rows if row.tune]
    lines = [["", *scores]]
    lines += [[row.name, *(chosen.get((b, row.name), "–") for b in scores)] for row in tuned]
    head, *rows = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    every = [one for some in scores.values() for one in some]
    below = [
        f"- {row.name!r} takes what was chosen for {row.tuned_as!r}"
        for row in study.rows
        if row.tuned_as is not None
    ]
    return "\n".join(
        [
            "## Tuning",
            "",
            f"{len(tuned[0].tune)} settings a row, {_budget(study, every)}.",
            "",
            aligned(head, rows),
            *(["", *below] if below else []),
            "",
        ]
    )


def choice_lines(study: Study, scores: Sequence[Score]) -> list[str]:
    """Return one line for each row that got its setting from a search."""
    chosen = {score.row: _words(score) for score in scores if score.chosen}
    lines = []
    for row in study.rows:
        if row.tune:
            how = f"of {len(row.tune)} settings, {_budget(study, scores)}"
            lines.append(f"{row.name!r} is tuned: {chosen[row.name]} ({how})")
        elif row.tuned_as is not None:
            lines.append(f"{row.name!r} is tuned as {row.tuned_as!r}: {chosen[row.tuned_as]}")
    return lines


def unsound_lines(scores: Sequence[Score]) -> list[str]:
    """Return one line for each row of which no setting could be judged."""
    return [
        f"{score.row!r}: each of its settings has a run that diverged or has no finite validation "
        "metric; the first one is used"
        for score in scores
        if score.chosen and not score.sound
    ]


def show_seeds(seeds: Iterable[int]) -> str:
    """Return seeds as text, those in sequence as a range.

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
    return f"seeds {show_seeds(study.tuning_seeds)}, chosen by the validation {name}"


def _words(score: Score) -> str:
    return " ".join(score.words) or "as listed"
