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
from metaloss.study.tables.statistics import SIGNIFICANT, MeanStd
from metaloss.study.tables.table import Line, Table, paired, refer, tie


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
        lost: The number of its runs without a finite metric.
        verdict: ``better`` or ``worse`` if p is below 0.05, else ``level``. A row that lost more
            runs than the other one is not better.
    """

    row: str
    mean: float | None
    difference: float | None
    better: int
    worse: int
    pairs: int
    p: float | None
    lost: int
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to use for a task.

    Attributes:
        use: The row with the best score on trusted rows that were held out.
        words: Its chosen setting.
        learned: Whether it learns its loss.
        metric, goal: The metric, and which values are better.
        mean, std, n: Of the test metric over seeds.
        lost: The number of other seeds, whose runs have no finite metric.
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
    lost: int
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
    sign = table.sign
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
    plain = table.reference
    table = refer(table, first.row)
    lines = table.by_name
    own = lines[first.row]
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
        n=own.n - own.lost,
        lost=own.lost,
        plain=None if plain == first.row else _against(table, own, lines[plain]),
        other=_against(table, own, lines[other.row]),
        seen=_seen(table, own, lines[other.row], learned if learns else ()),
        lead=lead,
        error=error,
        ranking=tuple(
            {"row": s.row, "score": s.mean, "words": s.words, "tuning_steps": costs[s.row]}
            for s in ranked
        ),
        chosen_by={"metric": first.metric.partition("/")[2], "seeds": tuple(first.values)},
    )


def _seen(table: Table, own: Line, other: Line, left_out: Collection[str]) -> Against | None:
    """Return the best other row on the test rows, if it beats the one that is compared anyway."""
    others = [
        line
        for line in table.lines
        if line.final is not None and line is not own and line.name not in left_out
    ]
    best = min(others, key=table.standing, default=other)
    return None if best is other else _against(table, own, best)


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


def _against(table: Table, own: Line, other: Line) -> Against:
    """Compare the advised row with another one, whose line is against the advised row."""
    pairs = paired(own, other)
    gaps = [table.sign * (there - here) for here, there in pairs]
    least = tie(pairs)
    better, worse = sum(gap > least for gap in gaps), sum(gap < -least for gap in gaps)
    verdict = "level"
    if other.p is not None and other.p < SIGNIFICANT:
        if better > worse and own.lost <= other.lost:
            verdict = "better"
        elif worse > better and own.lost >= other.lost:
            verdict = "worse"
    return Against(
        row=other.name,
        mean=None if other.final is None else other.final.mean,
        difference=None if other.difference is None else -other.difference,
        better=better,
        worse=worse,
        pairs=other.pairs,
        p=other.p,
        lost=other.lost,
        verdict=verdict,
    )


def to_json(advice: Advice, paragraph: str, more: Mapping[str, object]) -> str:
    """Return the advice and the paragraph as JSON, with ``more`` keys."""
    values = {**asdict(advice), "paragraph": paragraph, **more}
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
