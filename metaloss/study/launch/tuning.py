"""Tuning before a comparison: each row gets the setting that is best on trusted rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from metaloss.compose import compose
from metaloss.core.storage.run_folder import read_summary
from metaloss.errors import MetalossError
from metaloss.study.launch.jobs import Job, Resolve, config_of, plan_row
from metaloss.study.spec.spec import TUNING_FOLDER, Study


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting of a row, tested over the tuning seeds.

    Attributes:
        row: The row's name.
        setting: Its index among the row's settings, from 0.
        words: The arguments that it adds to those of the row.
        jobs: Its runs.
    """

    row: str
    setting: int
    words: tuple[str, ...]
    jobs: tuple[Job, ...]


@dataclass(frozen=True, kw_only=True)
class Score:
    """The result of a trial.

    Attributes:
        row, setting, words: The trial.
        n: The number of runs.
        metric: The metric that chooses, such as ``"valid/error"``; empty if no run has one. It is
            ``"test/error"`` with trusted rows that are held out, which are then the test rows.
        mean: Its mean over the runs at the end; None if a run has no finite value.
        diverged: The number of diverged runs.
        cost: What its runs cost together, in steps, with a meta-step as three.
        values: The metric by seed; None where it is not finite.
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
    cost: int = 0
    values: Mapping[int, float | None] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Return whether no run has diverged and each has a finite value."""
        return self.mean is not None and not self.diverged


def plan_trials(study: Study, out: Path, resolve: Resolve = compose) -> list[Trial]:
    """Return the trials of all tuned rows of a study without blocks. Nothing is changed.

    Args:
        study: The study.
        out: Runs are in ``out/tuning/<row>/<setting>/seed<k>``.
        resolve: Returns the config of ``KEY=VALUE`` arguments.

    Raises:
        MetalossError: If an argument is invalid, or a folder has a run with another config.
    """
    trials = []
    for row in study.rows:
        for index, words in enumerate(row.tune):
            tried = replace(row.with_words(words), name=f"{row.name}, setting {index}")
            held = (f"task.folds={study.folds}",) if study.folds else ()
            alone = Study(rows=(tried,), seeds=study.tuning_seeds, common=(*study.common, *held))
            folder = out / TUNING_FOLDER / row.slug / str(index)
            jobs = tuple(plan_row(alone, tried, folder, resolve))
            trials.append(Trial(row=row.name, setting=index, words=words, jobs=jobs))
    if study.equal == "steps":
        _check_equal_steps(trials)
    return trials


def _check_equal_steps(trials: Sequence[Trial]) -> None:
    costs: dict[str, int] = {}
    for trial in trials:
        costs[trial.row] = costs.get(trial.row, 0) + sum(job.cost for job in trial.jobs)
    first = next(iter(costs), "")
    for row, cost in costs.items():
        # Steps are whole numbers: three settings cannot always share them evenly.
        if abs(cost - costs[first]) > 0.01 * costs[first]:
            raise MetalossError(
                f"row {row!r}: its settings cost {cost} steps, those of row {first!r} "
                f"{costs[first]}: expected the same"
            )


def check_finals(study: Study, out: Path, resolve: Resolve = compose) -> None:
    """Check the rows to compare, as far as possible before tuning."""
    settings = {row.name: row.tune for row in study.rows}
    for row in study.rows:
        if row.tuned_as is not None:
            # Check one setting only, because all settings usually have the same keys.
            config_of(study, row.with_words(settings[row.tuned_as][0]), resolve)
        elif not row.tune:
            plan_row(study, row, out / row.slug, resolve)


def score_settings(trials: Sequence[Trial], split: str = "valid") -> list[Score]:
    """Return the scores of the trials, with one chosen for each row.

    This is the setting with the best mean metric at the end, on the rows of the given split. A
    setting with more diverged runs is worse than one with fewer, and one without a finite value is
    worst. Among equal settings, the first is chosen.

    Args:
        trials: The trials of one block, with finished runs.
        split: ``"valid"``; or ``"test"``, with trusted rows that are held out in its place.
    """
    summaries = [[_summary(job) for job in trial.jobs] for trial in trials]
    every = [summary for some in summaries for summary in some]
    metric = _metric(every, split)
    sign = -1.0 if any(summary.get("goal") == "max" for summary in every) else 1.0
    scores = [_score(trial, some, metric) for trial, some in zip(trials, summaries, strict=True)]
    best: dict[str, Score] = {}
    for score in scores:
        if score.row not in best or _rank(score, sign) < _rank(best[score.row], sign):
            best[score.row] = score
    return [replace(score, chosen=score is best[score.row]) for score in scores]


def settle(study: Study, scores: Sequence[Score]) -> Study:
    """Return the study with the chosen settings added to its rows, and nothing to tune."""
    chosen = {score.row: score.words for score in scores if score.chosen}
    rows = tuple(row.with_words(chosen.get(row.tuned_as or row.name, ())) for row in study.rows)
    return replace(study, rows=rows, tuning_seeds=())


def _summary(job: Job) -> dict[str, Any]:
    summary = read_summary(job.folder)
    assert summary is not None, "only finished runs have a score"
    return summary


def _metric(summaries: Sequence[dict[str, Any]], split: str) -> str:
    # The task's own metric comes before further ones.
    names = (name for summary in summaries for name in summary["metrics"])
    own = (name for name in names if name.startswith(f"{split}/") and "task_loss" not in name)
    return next(own, "")


def _score(trial: Trial, summaries: Sequence[dict[str, Any]], metric: str) -> Score:
    found = [summary["metrics"].get(metric) for summary in summaries]
    values = [float(v) if isinstance(v, int | float) and math.isfinite(v) else None for v in found]
    finite = [value for value in values if value is not None]
    return Score(
        row=trial.row,
        setting=trial.setting,
        words=trial.words,
        n=len(values),
        metric=metric,
        mean=math.fsum(finite) / len(values) if len(finite) == len(values) else None,
        diverged=sum(summary.get("status") == "diverged" for summary in summaries),
        cost=sum(job.cost for job in trial.jobs),
        values={job.seed: value for job, value in zip(trial.jobs, values, strict=True)},
    )


def _rank(score: Score, sign: float) -> tuple[float, float]:
    if score.mean is None:
        return (math.inf, math.inf)
    return (score.diverged, sign * score.mean)
