"""Which method to use for a task: chosen on trusted rows, reported on test rows.

The choice sees the scores of tuning alone, which are of trusted rows that were held out. The test
rows say how good the chosen method is, and take no part in the choice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from metaloss.errors import MetalossError
from metaloss.study.launch.tuning import Score
from metaloss.study.tables.statistics import SIGNIFICANT, TIE, MeanStd, paired_wilcoxon
from metaloss.study.tables.table import Line, Table, paired


@dataclass(frozen=True, kw_only=True)
class Against:
    """The advised row against another one, on the test rows, paired by seed.

    Attributes:
        row: The other row.
        mean: Its mean test metric; None if no run has a finite one.
        difference: The mean of (advised − other); None without pairs.
        better, worse: The number of seeds at which the advised row is better, and worse.
        pairs: The number of seeds that both have.
        p: Exact two-sided Wilcoxon signed-rank test; None with too few pairs.
    """

    row: str
    mean: float | None
    difference: float | None
    better: int
    worse: int
    pairs: int
    p: float | None

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` if p is below 0.05, else ``level``."""
        if self.p is None or self.p >= SIGNIFICANT or self.better == self.worse:
            return "level"
        return "better" if self.better > self.worse else "worse"


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to use for a task.

    Attributes:
        use: The row with the best score on trusted rows that were held out.
        words: Its chosen setting.
        learned: Whether it learns its loss.
        metric, goal: The metric, and which values are better.
        mean, std, n: Of the test metric over seeds.
        plain: Against plain training; None if that is advised.
        other: If a learned loss is advised, against the best row without one; else against the
            best learned loss. Best by the scores, too.
        seen: Against the best other row on the test rows (without a learned loss, if one is
            advised); None if that is ``other``. It took no part in the choice.
        lead, error: How far the best learned loss is ahead of the best fixed one by the scores,
            paired by seed, and the standard error of this mean. A learned loss is advised only if
            its lead is larger than that, because its steps cost three plain ones.
        ranking: Every row's chosen setting, the best first: its score, its words, its cost in
            steps.
        chosen_by: The metric and the seeds of the scores.
    """

    use: str
    words: tuple[str, ...]
    learned: bool
    metric: str
    goal: str
    mean: float | None
    std: float | None
    n: int
    plain: Against | None
    other: Against
    seen: Against | None
    lead: float
    error: float
    ranking: tuple[Mapping[str, object], ...]
    chosen_by: Mapping[str, object]


def advise(table: Table, scores: Sequence[Score], learned: Collection[str]) -> Advice:
    """Return which row to use.

    Args:
        table: The results on the test rows, with plain training as the reference.
        scores: The results of tuning; all rows are tuned.
        learned: The rows that learn their loss.

    Raises:
        MetalossError: If every setting of every row diverged or has no finite score.
    """
    sign = 1 if table.goal == "min" else -1
    settings = [score for score in scores if score.chosen and score.mean is not None]
    if not settings:
        raise MetalossError("no advice: every method diverged, or has no finite score")
    # Of equal scores the first row is taken, which is the simpler one.
    ranked = sorted(settings, key=lambda score: (score.diverged, sign * (score.mean or 0.0)))
    best = [
        next((score for score in ranked if (score.row in learned) is learns), None)
        for learns in (False, True)
    ]
    fixed, moving = best
    if fixed is None or moving is None:
        raise MetalossError("no advice: expected methods with a fixed and with a learned loss")
    lead, error = _lead(moving, fixed, sign)
    learns = ranked[0] is moving and lead > error
    first, other = (moving, fixed) if learns else (fixed, moving)
    lines = {line.name: line for line in table.lines}
    own = lines[first.row]
    plain = None if first.row == table.reference else lines[table.reference]
    costs: dict[str, int] = {}
    for score in scores:
        costs[score.row] = costs.get(score.row, 0) + score.cost
    return Advice(
        use=first.row,
        words=first.words,
        learned=learns,
        metric=table.metric,
        goal=table.goal,
        mean=None if own.final is None else own.final.mean,
        std=None if own.final is None else own.final.std,
        n=own.n,
        plain=None if plain is None else _against(own, plain, sign),
        other=_against(own, lines[other.row], sign),
        seen=_seen(table, own, lines[other.row], learned if learns else (), sign),
        lead=lead,
        error=error,
        ranking=tuple(
            {"row": s.row, "score": s.mean, "words": s.words, "tuning_steps": costs[s.row]}
            for s in ranked
        ),
        chosen_by={"metric": first.metric.partition("/")[2], "seeds": tuple(first.values)},
    )


def _seen(
    table: Table, own: Line, other: Line, left_out: Collection[str], sign: int
) -> Against | None:
    """Return the best other row on the test rows, if it beats the one that is compared anyway."""
    others = [
        (sign * line.final.mean, index)
        for index, line in enumerate(table.lines)
        if line.final is not None and line is not own and line.name not in left_out
    ]
    if not others:
        return None
    best = table.lines[min(others)[1]]
    return None if best is other else _against(own, best, sign)


def _lead(learned: Score, fixed: Score, sign: int) -> tuple[float, float]:
    """Return the mean lead over the seeds of both, and its standard error; 0 for one seed."""
    gaps = [
        sign * (there - here)
        for seed, here in learned.values.items()
        if here is not None and (there := fixed.values.get(seed)) is not None
    ]
    found = MeanStd.of(gaps)
    if found is None:
        return 0.0, 0.0
    return found.mean, 0.0 if found.std is None else found.std / math.sqrt(found.n)


def _against(own: Line, other: Line, sign: int) -> Against:
    pairs = paired(own, other)
    gaps = [sign * (there - here) for here, there in pairs]
    least = TIE * max((abs(value) for pair in pairs for value in pair), default=0.0)
    return Against(
        row=other.name,
        mean=None if other.final is None else other.final.mean,
        difference=sum(here - there for here, there in pairs) / len(pairs) if pairs else None,
        better=sum(gap > least for gap in gaps),
        worse=sum(gap < -least for gap in gaps),
        pairs=len(pairs),
        p=paired_wilcoxon([here for here, _ in pairs], [there for _, there in pairs])
        if pairs
        else None,
    )


def to_json(advice: Advice, paragraph: str, more: Mapping[str, object]) -> str:
    """Return the advice and the paragraph as JSON, with ``more`` keys."""
    values = {**asdict(advice), "paragraph": paragraph, **more}
    for name in ("plain", "other", "seen"):
        found = getattr(advice, name)
        values[name] = found and {**asdict(found), "verdict": found.verdict}
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
