"""The files that say what the blocks of a study say together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from metaloss.core.storage.files import write_atomically
from metaloss.study.plots.overview_plot import plot_overview
from metaloss.study.plots.rank_plot import plot_ranks
from metaloss.study.tables import summary_render
from metaloss.study.tables.summary import ALL, summarize
from metaloss.study.tables.table import Table, set_aside


def write_summary(
    tables: Mapping[str, Table],
    out: Path,
    *,
    reference: str | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    aside: Collection[str] = (),
) -> list[Path]:
    """Write ``summary.md``, ``summary.csv``, ``ranks.png`` and ``overview.png`` into ``out``.

    Args:
        tables: One for each block, by name.
        out: The folder.
        reference: The row to hold against the others; None: that of most blocks.
        groups: Names of blocks by label, summarized on their own.
        aside: Rows that are no rivals.

    Returns:
        What was written; without ``ranks.png`` if no two rows share two blocks.
    """
    summaries = summarize(tables, reference=reference, groups=groups, aside=aside)
    texts = {
        "summary.md": summary_render.to_markdown(summaries),
        "summary.csv": summary_render.to_csv(summaries),
    }
    for name, text in texts.items():
        write_atomically(out / name, text.encode())
    files = [out / name for name in texts]
    reference, aside = summaries[ALL].reference, summaries[ALL].aside
    tables = {name: set_aside(table, aside) for name, table in tables.items()}
    ranks = {label: one.ranks for label, one in summaries.items() if one.ranks is not None}
    if ranks:
        files.append(plot_ranks(ranks, out / "ranks.png", reference=reference))
    files.append(plot_overview(tables, out / "overview.png", reference=reference, aside=aside))
    return files
