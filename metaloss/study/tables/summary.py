"""Summarizes a study over its blocks: the reference against every other row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from metaloss.study.tables.ranks import Ranks, average_ranks
from metaloss.study.tables.render import frame_of
from metaloss.study.tables.statistics import SIGNIFICANT, paired_wilcoxon
from metaloss.study.tables.table import Line, Table, paired, referred, tie

# The group that every study has: all of its blocks.
ALL = "all"
_PAIR = ("block", "metric", "rival", "sign", "clear", "theirs", "ours", "mean")
_AGAINST = (
    "rival", "blocks", "wins", "clear_wins", "ties", "losses", "clear_losses", "metric",
    "gain", "n", "p",
)  # fmt: skip
_STANDING = ("block", "rivals", "beaten", "clearly_beaten", "beaten_by", "clearly_beaten_by")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The summary of a group of blocks.

    Attributes:
        reference: The row that is compared with all others.
        blocks: The group's blocks.
        against: See `against`; with the rows aside.
        standings: See `standings`; only among the rivals, the rows that are not aside.
        ranks: Mean ranks of the reference and its rivals; None if there is nothing to rank.
        aside: Rows that are not rivals.
    """

    reference: str
    blocks: tuple[str, ...]
    against: pd.DataFrame
    standings: pd.DataFrame
    ranks: Ranks | None
    aside: tuple[str, ...]


def summarize(
    tables: Mapping[str, Table],
    *,
    reference: str | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Summary]:
    """Return the summary of all blocks, named "all", and of every group of them, by label.

    Rows aside, such as ablations of the reference, are compared with it, but have no rank and no
    effect on whether it is first, and the tests of rivals are not corrected for them.

    Args:
        tables: One or more, for each block, by name.
        reference: The row to compare with the others; None: the most frequent reference of the
            blocks.
        groups: Names of blocks by label.
    """
    if reference is None:
        reference = Counter(table.reference for table in tables.values()).most_common(1)[0][0]
    tables = referred(tables, reference)
    every = dict.fromkeys(name for table in tables.values() for name in table.aside)
    others = tuple(name for name in every if name != reference)
    summaries = {}
    for label, names in {ALL: tuple(tables), **(groups or {})}.items():
        part = {name: tables[name] for name in names}
        found = pairwise(part, reference)
        summaries[label] = Summary(
            reference=reference,
            blocks=tuple(names),
            against=against(found),
            standings=standings(found[~found["rival"].isin(others)]),
            ranks=average_ranks(part),
            aside=others,
        )
    return summaries


def pairwise(tables: Mapping[str, Table], reference: str) -> pd.DataFrame:
    """Return the reference and another row in one block, for all blocks that have both.

    ``sign`` is 1 if the reference is better, -1 if it is worse, 0 for a tie. The row with fewer
    runs without a finite value is better; if both have equally many, the mean paired difference
    decides. ``clear``: whether the difference is significant by the block's test, corrected as in
    its table. ``theirs`` and ``ours`` are the means of the other row and of the reference over the
    seeds that both have, None without such a seed. ``mean`` is the mean of the other row over all
    its seeds. The signs of all means are such that lower is better.
    """
    found = []
    for block, table in referred(tables, reference).items():
        if (base := table.by_name.get(reference)) is None:
            continue
        for line in table.lines:
            if line is not base and (one := _pair(line, base, table.sign)) is not None:
                found.append({"block": block, "metric": table.metric, "rival": line.name, **one})
    return frame_of(_PAIR, found)


def against(found: pd.DataFrame) -> pd.DataFrame:
    """Return the results of the reference against each other row, from `pairwise` comparisons.

    ``wins``, ``ties`` and ``losses`` are those of the reference; with ``clear_`` only the
    significant ones. The other numbers are over the blocks with the most frequent ``metric`` only,
    because metrics with other units cannot be added: ``n``, the number of these blocks with paired
    seeds; ``gain``, the mean of their mean paired differences, positive if the reference is better;
    ``p`` of an exact two-sided Wilcoxon signed-rank test over their means.
    """
    rows = []
    for rival, some in found.groupby("rival", sort=False):
        metric = Counter(some["metric"]).most_common(1)[0][0]
        same = some[(some["metric"] == metric) & some["ours"].notna()]
        theirs, ours = same["theirs"].tolist(), same["ours"].tolist()
        gain = (math.fsum(theirs) - math.fsum(ours)) / len(ours) if ours else None
        won, lost, clear = some["sign"] > 0, some["sign"] < 0, some["clear"].astype(bool)
        counts = {
            "blocks": len(some),
            "wins": sum(won),
            "clear_wins": sum(won & clear),
            "ties": sum(some["sign"] == 0),
            "losses": sum(lost),
            "clear_losses": sum(lost & clear),
        }
        numbers = {"n": len(ours), "gain": gain, "p": paired_wilcoxon(theirs, ours)}
        rows.append({"rival": rival, "metric": metric, **counts, **numbers})
    return frame_of(_AGAINST, rows)


def standings(found: pd.DataFrame) -> pd.DataFrame:
    """Return the standing of the reference in each block, from its `pairwise` comparisons.

    That is the number of rivals; how many of them it beats in the mean, and significantly; the
    names of the rivals that beat it in the mean, the best first, and significantly.
    """
    rows = []
    for block, some in found.groupby("block", sort=False):
        won, clear = some["sign"] > 0, some["clear"].astype(bool)
        better = some[some["sign"] < 0].sort_values("mean", kind="stable")
        rows.append(
            {
                "block": block,
                "rivals": len(some),
                "beaten": sum(won),
                "clearly_beaten": sum(won & clear),
                "beaten_by": tuple(better["rival"]),
                "clearly_beaten_by": tuple(better["rival"][better["clear"].astype(bool)]),
            }
        )
    return frame_of(_STANDING, rows)


def _pair(line: Line, base: Line, turn: int) -> dict[str, object] | None:
    pairs = paired(line, base)
    lost = _sign(line.lost - base.lost)
    mean = math.inf if line.final is None else turn * line.final.mean
    if line.difference is None:
        if line.final is not None and base.final is not None:
            return None  # Both have values, but of different seeds, which are not comparable.
        return {"sign": lost, "clear": False, "mean": mean}
    theirs, ours = (turn * math.fsum(values) / len(pairs) for values in zip(*pairs, strict=True))
    by_value = 0 if abs(line.difference) <= tie(pairs) else _sign(turn * line.difference)
    # Runs without a number are not among the pairs. A row must not be better because of them.
    sign = lost or by_value
    significant = line.p_holm is not None and line.p_holm < SIGNIFICANT
    clear = significant and sign == by_value != 0
    return {"sign": sign, "clear": clear, "theirs": theirs, "ours": ours, "mean": mean}


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)
