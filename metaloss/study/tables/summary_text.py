"""The summary of a study's blocks as text: unrounded numbers, and tables to read."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from metaloss.study.tables.ranks import Ranks
from metaloss.study.tables.render import bullets, frame_of, show_p, to_markdown
from metaloss.study.tables.statistics import FEWEST_PAIRS, SIGNIFICANT
from metaloss.study.tables.summary import ALL, Summary

_NUMBERS = (
    "group", "row", "reference", "aside", "blocks", "wins", "clear_wins", "ties", "losses",
    "clear_losses", "metric", "n", "gain", "p", "mean_rank", "ranked_rows", "ranked_blocks",
    "critical_difference", "friedman_p",
)  # fmt: skip


def numbers(summaries: Mapping[str, Summary]) -> pd.DataFrame:
    """Return one line for each row of each group, with unrounded numbers."""
    rows = []
    for label, summary in summaries.items():
        found = {one["rival"]: one for one in summary.against.to_dict("records")}
        for row in (summary.reference, *found):
            named = {"group": label, "row": row, "reference": summary.reference}
            aside = {"aside": int(row in summary.aside)}
            rows.append({**named, **aside, **found.get(row, {}), **_rank(summary.ranks, row)})
    return frame_of(_NUMBERS, rows)


def to_text(summaries: Mapping[str, Summary]) -> str:
    """Return the Markdown tables of each group, and the rows that beat the reference by block."""
    parts = []
    for label, summary in summaries.items():
        parts += [f"## {label}: {_blocks(len(summary.blocks))}", headline(summary)]
        if not summary.against.empty:
            parts.append(_against_table(summary))
        if summary.ranks is not None:
            parts.append(_ranks_table(summary.ranks))
    whole = summaries[ALL]
    if not whole.standings.empty:
        parts += [f"## Who beats {whole.reference}", _standings_table(whole.standings)]
    return "\n\n".join([*parts, bullets(legend(whole))]) + "\n"


def headline(summary: Summary) -> str:
    """Return a sentence on the number of blocks in which the reference beats all its rivals."""
    reference, standings, n = summary.reference, summary.standings, len(summary.standings)
    if not n:
        return f"{reference} meets no rival here."
    first = sum(standings["beaten"] == standings["rivals"])
    clear = sum(standings["clearly_beaten"] == standings["rivals"])
    beaten = sum(map(bool, standings["beaten_by"]))
    clearly_beaten = sum(map(bool, standings["clearly_beaten_by"]))
    return (
        f"{reference} beats every rival in {first} of {_blocks(n)} ({first / n:.0%}), "
        f"significantly better than each of them in {clear}. Some rival beats it in {beaten}, "
        f"significantly in {clearly_beaten}."
    )


def legend(summary: Summary) -> list[str]:
    """Return the explanations of the tables' columns."""
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
    texts = summary.against.copy()
    texts["rival"] = [f"{r} (aside)" if r in summary.aside else r for r in texts["rival"]]
    texts["gain"] = ["–" if gain is None else f"{gain:+.3g}" for gain in texts["gain"]]
    texts["p"] = list(map(show_p, texts["p"]))
    texts = texts.drop(columns="metric").astype(str)
    titles = {"rival": f"{summary.reference} against", "clear_wins": "clear"}
    return to_markdown(texts.rename(columns={**titles, "clear_losses": "clear"}))


def _ranks_table(ranks: Ranks) -> str:
    k, n = len(ranks.means), len(ranks.blocks)
    words = f"Ranks of {k} rows over {_blocks(n)}; critical difference {ranks.critical:.2f}"
    if ranks.p is not None:
        words += f"; Friedman χ² = {ranks.statistic:.1f}, p = {show_p(ranks.p)}"
    rows = [{"": row, "mean rank": f"{mean:.2f}"} for row, mean in ranks.means.items()]
    return f"{words}.\n\n{to_markdown(pd.DataFrame(rows))}"


def _standings_table(standings: pd.DataFrame) -> str:
    rows = [
        {
            "block": one.block,
            "beats": f"{one.beaten} of {one.rivals}",
            "clearly": f"{one.clearly_beaten} of {one.rivals}",
            "beaten by": "; ".join(
                f"**{row}**" if row in one.clearly_beaten_by else row for row in one.beaten_by
            )
            or "–",
        }
        for one in standings.itertuples()
    ]
    clear = any(map(len, standings["clearly_beaten_by"]))
    return to_markdown(pd.DataFrame(rows)) + ("\n\nIn bold: significantly." if clear else "")


def _blocks(n: int) -> str:
    return "1 block" if n == 1 else f"{n} blocks"


def _rank(ranks: Ranks | None, row: str) -> dict[str, float | None]:
    if ranks is None or row not in ranks.means:
        return {}
    return {
        "mean_rank": ranks.means[row],
        "ranked_rows": len(ranks.means),
        "ranked_blocks": len(ranks.blocks),
        "critical_difference": ranks.critical,
        "friedman_p": ranks.p,
    }
