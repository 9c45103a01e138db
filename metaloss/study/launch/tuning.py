"""Tuning before a comparison: each row gets the one of its settings that validates best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metaloss.compose import compose
from metaloss.core.storage.run_folder import read_summary
from metaloss.study.launch.jobs import Job, Resolve, config_of, plan_row
from metaloss.study.spec.spec import TUNING_FOLDER, Study


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting of a row, tried over the tuning seeds.

    Attributes:
        row: The row's name.
        setting: Its place among the row's settings, from 0.
        words: What it adds to the row's words.
        jobs: Its runs.
    """

    row: str
    setting: int
    words: tuple[str, ...]
    jobs: tuple[Job, ...]


@dataclass(frozen=True, kw_only=True)
class Score:
    """What came out of a trial.

    Attributes:
        row, setting, words: Which trial.
        n: Runs.
        metric: What is judged by, such as ``"valid/error"``; empty if no run has such a metric.
        mean: Its mean over the runs, at their end; None if one of them has no finite value.
        diverged: Runs that diverged.
        chosen: Whether the row gets this setting.
    """

    row: str
    setting: int
    words: tuple[str, ...]
    n: int
    metric: str
    mean: float | None
    diverged: int
    chosen: bool = False

    @property
    def sound(self) -> bool:
        """Whether no run diverged and each has a finite value."""
        return self.mean is not None and not self.diverged


def plan_trials(study: Study, out: Path, resolve: Resolve = compose) -> list[Trial]:
    """Return the trials of all tuned rows of a study without blocks; changes nothing.

    Args:
        study: What to compare.
        out: Runs lie in ``out/tuning/<row>/<setting>/seed<k>``.
        resolve: Makes a configuration from words.

    Raises:
        MetalossError: If a word is wrong, or a folder holds a run with another configuration.
    """
    trials = []
    for row in study.rows:
        for index, words in enumerate(row.tune):
            tried = replace(row.with_words(words), name=f"{row.name}, setting {index}")
            alone = Study(rows=(tried,), seeds=study.tuning_seeds, common=study.common)
            folder = out / TUNING_FOLDER / row.slug / str(index)
            jobs = tuple(plan_row(alone, tried, folder, resolve))
            trials.append(Trial(row=row.name, setting=index, words=words, jobs=jobs))
    return trials


def check_finals(study: Study, out: Path, resolve: Resolve = compose) -> None:
    """Raise for what is wrong with the rows to compare, as far as it shows before the search."""
    settings = {row.name: row.tune for row in study.rows}
    for row in study.rows:
        if row.tuned_as is not None:
            # One stands for all: the settings of a search set the same keys, as a rule.
            config_of(study, row.with_words(settings[row.tuned_as][0]), resolve)
        elif not row.tune:
            plan_row(study, row, out / row.slug, resolve)


def judge(trials: Sequence[Trial]) -> list[Score]:
    """Return the trials' scores, of each row one of them chosen.

    Chosen is the best mean of the task's validation metric at the end of the runs. A setting with
    more diverged runs is worse than one with fewer, one without a finite value worse still; of
    equal ones the first listed is chosen.

    Args:
        trials: Those of one block; their runs have finished.
    """
    summaries = [[_summary(job) for job in trial.jobs] for trial in trials]
    every = [summary for some in summaries for summary in some]
    metric = _valid_metric(every)
    sign = -1.0 if any(summary.get("goal") == "max" for summary in every) else 1.0
    scores = [_score(trial, some, metric) for trial, some in zip(trials, summaries, strict=True)]
    best: dict[str, Score] = {}
    for score in scores:
        if score.row not in best or _rank(score, sign) < _rank(best[score.row], sign):
            best[score.row] = score
    return [replace(score, chosen=score is best[score.row]) for score in scores]


def settle(study: Study, scores: Sequence[Score]) -> Study:
    """Return the study with the chosen settings among the words of its rows: nothing is tuned."""
    chosen = {score.row: score.words for score in scores if score.chosen}
    rows = tuple(row.with_words(chosen.get(row.tuned_as or row.name, ())) for row in study.rows)
    return replace(study, rows=rows, tuning_seeds=())


def _summary(job: Job) -> dict[str, Any]:
    summary = read_summary(job.folder)
    assert summary is not None, "only finished runs are judged"
    return summary


def _valid_metric(summaries: Sequence[dict[str, Any]]) -> str:
    names = {name for summary in summaries for name in summary["metrics"]}
    own = (name for name in sorted(names) if name.startswith("valid/") and "loss" not in name)
    return next(own, "")


def _score(trial: Trial, summaries: Sequence[dict[str, Any]], metric: str) -> Score:
    values = [summary["metrics"].get(metric) for summary in summaries]
    finite = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
    return Score(
        row=trial.row,
        setting=trial.setting,
        words=trial.words,
        n=len(values),
        metric=metric,
        mean=math.fsum(finite) / len(values) if len(finite) == len(values) else None,
        diverged=sum(summary.get("status") == "diverged" for summary in summaries),
    )


def _rank(score: Score, sign: float) -> tuple[float, float]:
    if score.mean is None:
        return (math.inf, math.inf)
    return (score.diverged, sign * score.mean)
