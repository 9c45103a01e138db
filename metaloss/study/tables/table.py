"""The table of a comparison: from finished runs to numbers."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from metaloss.core.storage.run_folder import RunFolder
from metaloss.errors import MetalossError, unknown_name
from metaloss.study.tables.statistics import TIE, MeanStd, holm, paired_wilcoxon


@dataclass(frozen=True, kw_only=True)
class Group:
    """Finished runs that differ only in their seed.

    Attributes:
        name: The row's name.
        static: Whether φ never moves.
        runs: By seed, in order.
    """

    name: str
    static: bool
    runs: Mapping[int, RunFolder]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the table.

    Attributes:
        name: The row's name.
        n: The number of runs.
        final, best: The test metric at the end, and at the step with the best validation metric;
            over runs with a finite value.
        valid: The validation metric at the end, by which a row may be chosen.
        diverged: The number of runs that diverged.
        chance: The number of other runs that end no better than the best constant prediction.
        seconds: A run's mean duration.
        values: The final test metric by seed; None where it is not finite.
        difference: Mean paired difference to the reference; None for the reference itself.
        pairs: The number of seeds of the difference and the test.
        p, p_holm: Exact two-sided Wilcoxon signed-rank test against the reference; corrected
            for the number of rivals; a row aside for the number of rows aside.
    """

    name: str
    n: int
    final: MeanStd | None
    best: MeanStd | None
    valid: MeanStd | None
    diverged: int
    seconds: float | None
    values: dict[int, float | None]
    difference: float | None = None
    pairs: int = 0
    p: float | None = None
    p_holm: float | None = None
    chance: int = 0

    @property
    def lost(self) -> int:
        """The number of runs whose final metric is not a finite number."""
        return sum(value is None for value in self.values.values())


@dataclass(frozen=True, kw_only=True)
class Table:
    """The numbers of a comparison.

    Attributes:
        metric: The metric that is compared.
        goal: Which values are better, ``"min"`` or ``"max"``.
        reference: The row that the others are tested against.
        lines: The rows.
        aside: The names of rows that are not rivals of the reference.
    """

    metric: str
    goal: str
    reference: str
    lines: tuple[Line, ...]
    aside: tuple[str, ...] = ()

    @property
    def sign(self) -> int:
        """What makes lower values of the metric the better ones: 1 or -1."""
        return 1 if self.goal == "min" else -1

    @property
    def by_name(self) -> dict[str, Line]:
        """The rows by name."""
        return {line.name: line for line in self.lines}

    @property
    def rivals(self) -> tuple[Line, ...]:
        """The reference and its rivals: the rows that are not aside."""
        aside = {*self.aside} - {self.reference}
        return tuple(line for line in self.lines if line.name not in aside)

    @property
    def best(self) -> str | None:
        """The name of the first of the `rivals` by `standing`; None if none has a mean."""
        ranked = [(self.standing(line), line.name) for line in self.rivals if line.final]
        return min(ranked)[1] if ranked else None

    def standing(self, line: Line) -> tuple[int, float]:
        """Return what rows are ranked by, lower is better: lost runs first, then the final mean."""
        return line.lost, math.inf if line.final is None else self.sign * line.final.mean


def make_table(
    groups: Sequence[Group],
    *,
    reference: str | None = None,
    metric: str | None = None,
    aside: Collection[str] = (),
) -> Table:
    """Return the table of finished runs.

    Args:
        groups: Rows in order; every run has a summary.
        reference: The row that others are tested against; None: the first static one, else the
            first.
        metric: For example ``"test/error"``; None: the runs' own test metric.
        aside: Rows that are not rivals of the reference, such as its ablations.

    Raises:
        MetalossError: If the reference is not a row, or not all runs have the metric and its goal.
    """
    if not groups:
        raise MetalossError("nothing to compare: no finished run")
    if reference is None:
        reference = next((group.name for group in groups if group.static), groups[0].name)
    summaries = [_summary(run) for group in groups for run in group.runs.values()]
    metric = _metric(summaries, metric)
    goals = sorted({str(summary.get("goal", "min")) for summary in summaries})
    if len(goals) > 1:
        raise MetalossError(f"runs disagree about which values of {metric} are better: {goals}")
    lines = tuple(_line(group, metric) for group in groups)
    table = Table(metric=metric, goal=goals[0], reference=reference, lines=lines)
    return refer(set_aside(table, aside), reference)


def refer(table: Table, reference: str) -> Table:
    """Return the table with its rows tested against another reference.

    Raises:
        MetalossError: If the reference is not a row.
    """
    if (base := table.by_name.get(reference)) is None:
        raise unknown_name("reference row", reference, table.by_name)
    compared = tuple(_against(base, line) for line in table.lines)
    return _corrected(replace(table, reference=reference, lines=compared))


def referred(tables: Mapping[str, Table], reference: str) -> dict[str, Table]:
    """Return the tables of blocks tested against one reference, where they have this row."""
    return {
        name: refer(table, reference)
        if reference in table.by_name and reference != table.reference
        else table
        for name, table in tables.items()
    }


def set_aside(table: Table, names: Collection[str]) -> Table:
    """Return the table with other rows aside; unknown ``names`` are ignored."""
    aside = tuple(line.name for line in table.lines if line.name in names)
    return table if aside == table.aside else _corrected(replace(table, aside=aside))


def _line(group: Group, metric: str) -> Line:
    summaries = {seed: _summary(run) for seed, run in group.runs.items()}
    every = list(summaries.values())

    def numbers(name: str, part: str = "metrics") -> dict[int, float]:
        return {seed: _number((s.get(part) or {}).get(name)) for seed, s in summaries.items()}

    final, best = numbers(metric), numbers(metric, "metrics_at_best_validation")
    valid = numbers(f"valid/{metric.partition('/')[2]}")
    duration = MeanStd.of([_number(summary.get("seconds")) for summary in every])
    diverged = [summary.get("status") == "diverged" for summary in every]
    lost = [bool(summary.get("learned_nothing")) for summary in every]
    return Line(
        name=group.name,
        n=len(every),
        final=MeanStd.of(list(final.values())),
        best=MeanStd.of(list(best.values())),
        valid=MeanStd.of(list(valid.values())),
        diverged=sum(diverged),
        chance=sum(none and not failed for none, failed in zip(lost, diverged, strict=True)),
        seconds=None if duration is None else duration.mean,
        values={seed: value if math.isfinite(value) else None for seed, value in final.items()},
    )


def paired(line: Line, base: Line) -> list[tuple[float, float]]:
    """Return the finite values of two rows at the seeds that both have."""
    return [
        (value, there)
        for seed, value in line.values.items()
        if value is not None and (there := base.values.get(seed)) is not None
    ]


def tie(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the largest difference of `paired` values that counts as none."""
    return TIE * max((abs(value) for pair in pairs for value in pair), default=0.0)


def _against(base: Line, line: Line) -> Line:
    pairs = paired(line, base)
    if line is base or not pairs:
        return replace(line, difference=None, pairs=0, p=None)
    return replace(
        line,
        difference=math.fsum(here - there for here, there in pairs) / len(pairs),
        pairs=len(pairs),
        p=paired_wilcoxon([here for here, _ in pairs], [there for _, there in pairs]),
    )


def _corrected(table: Table) -> Table:
    """Correct the p values, separately for rivals and for rows aside, such as ablations."""
    ps: dict[str, float | None] = {}
    for apart in (False, True):
        family = [line for line in table.lines if (line.name in table.aside) is apart]
        corrected = holm([line.p for line in family])
        ps |= {line.name: p for line, p in zip(family, corrected, strict=True)}
    lines = tuple(replace(line, p_holm=ps[line.name]) for line in table.lines)
    return replace(table, lines=lines)


def _metric(summaries: Sequence[Mapping[str, Any]], metric: str | None) -> str:
    shared = set.intersection(*(set(summary["metrics"]) for summary in summaries))
    if metric is not None:
        if metric not in shared:
            raise unknown_name("metric (of all these runs)", metric, shared)
        return metric
    # The task's own metric comes before further ones.
    first = [name for name in summaries[0]["metrics"] if name in shared]
    own = [name for name in first if name.startswith("test/") and "task_loss" not in name]
    if not own:
        raise MetalossError("the runs share no test metric: are they runs of one task?")
    return own[0]


def _summary(run: RunFolder) -> dict[str, Any]:
    assert run.summary is not None, "only finished runs are compared"
    return run.summary


def _number(value: Any) -> float:
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if usable else math.nan
