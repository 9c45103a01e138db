"""The summary of a study's blocks as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from metaloss.study.tables.ranks import Ranks
from metaloss.study.tables.render import aligned, show_p
from metaloss.study.tables.statistics import FEWEST_PAIRS, SIGNIFICANT
from metaloss.study.tables.summary import ALL, Against, Standing, Summary

_COLUMNS = (
    "group", "row", "reference", "aside", "blocks", "wins", "clear_wins", "ties", "losses",
    "clear_losses", "metric", "n", "gain", "p", "mean_rank", "ranked_rows", "ranked_blocks",
    "critical_difference", "friedman_p",
)  # fmt: skip


def to_csv(summaries: Mapping[str, Summary]) -> str:
    """Return one line for each row of each group, unrounded; empty where there is no number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for label, summary in summaries.items():
        found = {one.rival: one for one in summary.against}
        for row in (summary.reference, *found):
            aside = int(row in summary.aside)
            numbers = [*_numbers(found.get(row)), *_rank_numbers(summary.ranks, row)]
            writer.writerow([label, row, summary.reference, aside, *numbers])
    return text.getvalue()


def to_markdown(summaries: Mapping[str, Summary]) -> str:
    """Return the tables of each group, and who beats the reference in which block."""
    parts = []
    for label, summary in summaries.items():
        parts += [f"## {label}: {_blocks(len(summary.blocks))}", headline(summary)]
        if summary.against:
            parts.append(_against_table(summary))
        if summary.ranks is not None:
            parts.append(_ranks_table(summary.ranks))
    whole = summaries[ALL]
    if whole.standings:
        parts += [f"## Who beats {whole.reference}", _standings_table(whole.standings)]
    parts.append("\n".join(f"- {line}" for line in legend(whole)))
    return "\n\n".join(parts) + "\n"


def headline(summary: Summary) -> str:
    """Return in words in how many blocks the reference is ahead of all its rivals."""
    reference, standings = summary.reference, list(summary.standings.values())
    if not standings:
        return f"{reference} meets no rival here."
    n = len(standings)
    first = sum(one.first for one in standings)
    clear = sum(one.clearly_first for one in standings)
    beaten = sum(bool(one.beaten_by) for one in standings)
    clearly_beaten = sum(bool(one.clearly_beaten_by) for one in standings)
    return (
        f"{reference} beats every rival in {first} of {_blocks(n)} ({first / n:.0%}), "
        f"significantly better than each of them in {clear}. Some rival beats it in {beaten}, "
        f"significantly in {clearly_beaten}."
    )


def legend(summary: Summary) -> list[str]:
    """Return what must be known to read the tables."""
    reference = summary.reference
    lines = [
        f"wins, ties, losses: blocks where {reference} is better, equal, worse by the mean paired "
        "difference; of two rows the one with more runs without a finite number is the worse",
        f"clear: significant in its block (paired by seed, Holm-corrected p < {SIGNIFICANT})",
        f"gain: mean over n blocks of the mean paired difference, positive where {reference} is "
        "better; n: the blocks of one metric where both rows have numbers",
        "p: exact two-sided Wilcoxon signed-rank test over the means of these n blocks, not "
        f"corrected for the number of rows; 'n too small' below {FEWEST_PAIRS}; blocks that share "
        "their data are not independent, and p is then too small",
        "mean rank: 1 is the best; over the blocks that share exactly the same rows; the critical "
        "difference is Nemenyi's (Demšar, JMLR 7, 2006)",
    ]
    if summary.aside:
        lines.append(
            f"aside, no rivals and without a rank: {', '.join(summary.aside)}; Holm's correction "
            "counts these among themselves, and the rivals without them"
        )
    return lines


def _against_table(summary: Summary) -> str:
    head = [
        f"{summary.reference} against", "blocks", "wins", "clear", "ties", "losses", "clear",
        "gain", "n", "p",
    ]  # fmt: skip
    rows = [
        [
            f"{one.rival} (aside)" if one.rival in summary.aside else one.rival,
            *map(
                str,
                (one.blocks, one.wins, one.clear_wins, one.ties, one.losses, one.clear_losses),
            ),
            "–" if one.gain is None else f"{one.gain:+.3g}",
            str(one.n),
            show_p(one.p),
        ]
        for one in summary.against
    ]
    return aligned(head, rows)


def _ranks_table(ranks: Ranks) -> str:
    k, n = len(ranks.means), len(ranks.blocks)
    words = f"Ranks of {k} rows over {_blocks(n)}; critical difference {ranks.critical:.2f}"
    if ranks.p is not None:
        words += f"; Friedman χ² = {ranks.statistic:.1f}, p = {show_p(ranks.p)}"
    rows = [[row, f"{mean:.2f}"] for row, mean in ranks.means.items()]
    return f"{words}.\n\n{aligned(['', 'mean rank'], rows)}"


def _standings_table(standings: Mapping[str, Standing]) -> str:
    rows = [
        [
            block,
            f"{one.beaten} of {one.rivals}",
            f"{one.clearly_beaten} of {one.rivals}",
            _names(one),
        ]
        for block, one in standings.items()
    ]
    text = aligned(["block", "beats", "clearly", "beaten by"], rows)
    clear = any(one.clearly_beaten_by for one in standings.values())
    return text + ("\n\nIn bold: significantly." if clear else "")


def _names(one: Standing) -> str:
    names = (f"**{row}**" if row in one.clearly_beaten_by else row for row in one.beaten_by)
    return "; ".join(names) or "–"


def _blocks(n: int) -> str:
    return "1 block" if n == 1 else f"{n} blocks"


def _numbers(one: Against | None) -> list[object]:
    if one is None:
        return [""] * 10
    counts = [one.blocks, one.wins, one.clear_wins, one.ties, one.losses, one.clear_losses]
    return [*counts, one.metric, one.n, one.gain, one.p]


def _rank_numbers(ranks: Ranks | None, row: str) -> list[object]:
    if ranks is None or row not in ranks.means:
        return [""] * 5
    numbers = [len(ranks.means), len(ranks.blocks), ranks.critical, ranks.p]
    return [ranks.means[row], *numbers]
