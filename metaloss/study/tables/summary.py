"""What a study says over its blocks: the reference against every other row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from metaloss.errors import MetalossError, unknown_name
from metaloss.study.tables.ranks import Ranks, average_ranks
from metaloss.study.tables.statistics import SIGNIFICANT, TIE, paired_wilcoxon
from metaloss.study.tables.table import Line, Table, paired, refer, set_aside

# The group that every study has: all of its blocks.
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Duel:
    """The reference and another row in one block.

    Attributes:
        sign: 1 where the reference is better, -1 where it is worse, 0 for a tie: by the number of
            runs without a finite value; of equally many, by the mean paired difference.
        significant: Whether the block's test, corrected as in its table, says so.
        means: Of the other row and of the reference, over the seeds that both have, turned such
            that lower is better; None without such a seed.
    """

    sign: int
    significant: bool
    means: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Against:
    """The reference against one other row, over the blocks that have both.

    Attributes:
        rival: The other row.
        blocks: How many have both.
        wins, ties, losses: Of the reference.
        clear_wins, clear_losses: Those of them that are significant in their block.
        metric: The metric of most of the blocks; what follows is over these alone, since numbers
            in other units do not add up.
        n: How many of these have paired seeds.
        gain: Mean over these of the mean paired difference; positive where the reference is better.
        p: Exact two-sided Wilcoxon signed-rank test over their means; None below six.
    """

    rival: str
    blocks: int
    wins: int
    ties: int
    losses: int
    clear_wins: int
    clear_losses: int
    metric: str
    n: int
    gain: float | None
    p: float | None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where the reference stands among its rivals in one block.

    Attributes:
        rivals: How many there are.
        beaten: How many of them it beats in the mean.
        clearly_beaten: How many of them significantly.
        beaten_by: Those that beat it in the mean, the best first.
        clearly_beaten_by: Those of them that do so significantly.
    """

    rivals: int
    beaten: int
    clearly_beaten: int
    beaten_by: tuple[str, ...]
    clearly_beaten_by: tuple[str, ...]

    @property
    def first(self) -> bool:
        """Whether the reference beats every rival in the mean."""
        return self.beaten == self.rivals

    @property
    def clearly_first(self) -> bool:
        """Whether the reference beats every rival significantly."""
        return self.clearly_beaten == self.rivals


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a group of blocks says.

    Attributes:
        reference: The row that is held against all others.
        blocks: The group's blocks.
        against: One for every other row, those aside included.
        standings: By block, among the rivals: the rows that are not aside.
        ranks: Mean ranks of the reference and its rivals; None if there is nothing to rank.
        aside: Rows that are no rivals.
    """

    reference: str
    blocks: tuple[str, ...]
    against: tuple[Against, ...]
    standings: dict[str, Standing]
    ranks: Ranks | None
    aside: tuple[str, ...]


def summarize(
    tables: Mapping[str, Table],
    *,
    reference: str | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    aside: Collection[str] = (),
) -> dict[str, Summary]:
    """Return the summary of all blocks, named "all", and of every group of them, by label.

    Args:
        tables: One for each block, by name.
        reference: The row to hold against the others; None: the one that most blocks have as
            theirs.
        groups: Names of blocks by label.
        aside: Rows that are no rivals, such as ablations of the reference: they are compared with
            it, but do not decide whether it is first, have no rank, and the blocks' tests of
            rivals are not corrected for them.

    Raises:
        MetalossError: If there are no tables, or a group names a block that is not there.
    """
    if not tables:
        raise MetalossError("nothing to summarize: no block")
    if reference is None:
        reference = Counter(table.reference for table in tables.values()).most_common(1)[0][0]
    for label, names in (groups or {}).items():
        for name in names:
            if name not in tables:
                raise unknown_name(f"block in group {label!r}", name, tables)
    chosen = {
        ALL: tuple(tables),
        **{label: tuple(names) for label, names in (groups or {}).items()},
    }
    others = tuple(name for name in dict.fromkeys(aside) if name != reference)
    tables = {name: set_aside(table, others) for name, table in tables.items()}
    summaries = {}
    for label, names in chosen.items():
        part = {name: tables[name] for name in names}
        summaries[label] = Summary(
            reference=reference,
            blocks=names,
            against=against(part, reference),
            standings=standings(part, reference, aside=others),
            ranks=average_ranks(part, aside=others),
            aside=others,
        )
    return summaries


def against(tables: Mapping[str, Table], reference: str) -> tuple[Against, ...]:
    """Return how the reference fares against each other row, over the blocks that have both."""
    duels: dict[str, list[tuple[str, Duel]]] = {}
    for table in tables.values():
        for rival, duel in _duels(table, reference).items():
            duels.setdefault(rival, []).append((table.metric, duel))
    return tuple(_against(rival, found) for rival, found in duels.items())


def standings(
    tables: Mapping[str, Table], reference: str, *, aside: Collection[str] = ()
) -> dict[str, Standing]:
    """Return by block how the reference stands among the rows that are not aside.

    Blocks without the reference, or without a rival, are left out.
    """
    found = {}
    for name, table in tables.items():
        duels = {
            rival: duel for rival, duel in _duels(table, reference).items() if rival not in aside
        }
        if not duels:
            continue
        lost = [rival for rival, duel in duels.items() if duel.sign < 0]
        lost.sort(key=lambda rival: _mean(table, rival))
        found[name] = Standing(
            rivals=len(duels),
            beaten=sum(duel.sign > 0 for duel in duels.values()),
            clearly_beaten=sum(duel.sign > 0 and duel.significant for duel in duels.values()),
            beaten_by=tuple(lost),
            clearly_beaten_by=tuple(rival for rival in lost if duels[rival].significant),
        )
    return found


def _duels(table: Table, reference: str) -> dict[str, Duel]:
    lines = {line.name: line for line in table.lines}
    if reference not in lines:
        return {}
    if table.reference != reference:
        table = refer(table, reference)
    base = lines[reference]
    found = {line.name: _duel(line, base, table.goal) for line in table.lines}
    return {rival: duel for rival, duel in found.items() if duel is not None and rival != reference}


def _duel(line: Line, base: Line, goal: str) -> Duel | None:
    pairs = paired(line, base)
    if not pairs:
        if line.final is not None and base.final is not None:
            return None  # Both have values, of different seeds: not comparable.
        return Duel(sign=_sign(line.lost - base.lost), significant=False, means=None)
    turn = 1 if goal == "min" else -1
    here, there = (turn * math.fsum(values) / len(pairs) for values in zip(*pairs, strict=True))
    difference = here - there
    tie = TIE * max(abs(value) for pair in pairs for value in pair)
    by_value = 0 if abs(difference) <= tie else _sign(difference)
    # The runs without a number are not among the pairs: they must not leave a row the better.
    sign = _sign(line.lost - base.lost) or by_value
    significant = line.p_holm is not None and line.p_holm < SIGNIFICANT
    return Duel(sign=sign, significant=significant and sign == by_value != 0, means=(here, there))


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)


def _against(rival: str, found: Sequence[tuple[str, Duel]]) -> Against:
    metric = Counter(metric for metric, _ in found).most_common(1)[0][0]
    means = [duel.means for name, duel in found if name == metric and duel.means is not None]
    here, there = ([pair[index] for pair in means] for index in range(2))
    duels = [duel for _, duel in found]
    return Against(
        rival=rival,
        blocks=len(duels),
        wins=sum(duel.sign > 0 for duel in duels),
        ties=sum(duel.sign == 0 for duel in duels),
        losses=sum(duel.sign < 0 for duel in duels),
        clear_wins=sum(duel.sign > 0 and duel.significant for duel in duels),
        clear_losses=sum(duel.sign < 0 and duel.significant for duel in duels),
        metric=metric,
        n=len(means),
        gain=(math.fsum(here) - math.fsum(there)) / len(means) if means else None,
        p=paired_wilcoxon(here, there),
    )


def _mean(table: Table, row: str) -> float:
    """Return a row's mean, turned such that lower is better."""
    final = next(line.final for line in table.lines if line.name == row)
    sign = 1 if table.goal == "min" else -1
    return math.inf if final is None else sign * final.mean
