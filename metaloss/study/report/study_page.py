"""The report of a study: its tables, ranks, an overview as a heat map, and learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metaloss.core.storage.run_folder import members_of, read_run
from metaloss.study.plots.comparison_plot import band
from metaloss.study.plots.overview_plot import log_ratios, widest_of
from metaloss.study.plots.style import thin
from metaloss.study.report.page import COLORS, Block, Chart, Chooser, Section, Table
from metaloss.study.spec.spec import Row, Study
from metaloss.study.tables import table_text
from metaloss.study.tables.render import show_p
from metaloss.study.tables.statistics import SIGNIFICANT
from metaloss.study.tables.summary import ALL, summarize
from metaloss.study.tables.table import Table as Numbers

# The columns of a table, by the names that the unrounded numbers have.
_COLUMNS = {
    "block": "block", "row": "row", "n": "n", "mean": "mean", "std": "std",
    "valid_mean": "validation", "difference": "difference", "p_holm": "p (Holm)",
    "diverged": "diverged", "seconds": "seconds",
}  # fmt: skip


def study_sections(
    tables: Mapping[str, Numbers], folders: Mapping[str, Path], study: Study | None
) -> list[Section]:
    """Return the sections of a study.

    Args:
        tables: The numbers of each block, by name; one without a name for a single table.
        folders: The folder of each block, in which its runs are.
        study: The study, if the folder has one.
    """
    sections = [Section(title="Results", blocks=_choice(_numbers(tables)))]
    if len(tables) > 1:
        sections += _over_blocks(tables, study)
    curves = {name: _curves(tables[name], folder) for name, folder in folders.items()}
    curves = {name: blocks for name, blocks in curves.items() if blocks}
    if curves:
        sections.append(Section(title="Learning curves", blocks=_choice(curves)))
    return sections


def _choice(blocks: dict[str, list[Block]]) -> list[Block]:
    if len(blocks) == 1:
        (only,) = blocks.values()
        return only
    return [Chooser(label="Block", blocks=dict(blocks))]


def _numbers(tables: Mapping[str, Numbers]) -> dict[str, list[Block]]:
    shown: dict[str, list[Block]] = {}
    if len(tables) > 1:
        shown["all blocks"] = [_table(tables)]
    for name, table in tables.items():
        shown[name or "all rows"] = [_bars(table), _table({"": table})]
    return shown


def _table(tables: Mapping[str, Numbers]) -> Table:
    columns = [name for name in _COLUMNS if name != "block" or "" not in tables]
    frame = table_text.numbers(tables)[columns].rename(columns=_COLUMNS)
    frame = frame.where(frame.notna(), math.nan)
    table = next(iter(tables.values()))
    note = "; ".join(dict.fromkeys(line for t in tables.values() for line in table_text.legend(t)))
    best = table.best if len(tables) == 1 else None
    decimals = max(table_text.decimals(table) for table in tables.values())
    digits = dict.fromkeys(("mean", "std", "validation", "difference"), decimals)
    digits |= {"p (Holm)": 3, "seconds": 1}
    return Table(frame=frame, note=note, digits=digits, bold=best)


def _bars(table: Numbers) -> Chart:
    lines = [line for line in table.lines if line.final is not None][::-1]
    names = [line.name for line in lines]
    colors = [COLORS[1] if line.name == table.reference else COLORS[0] for line in lines]
    dots = [
        (value, line.name) for line in lines for value in line.values.values() if value is not None
    ]
    return Chart(
        title=f"{table.metric}, mean over seeds and each seed",
        traces=[
            {
                "type": "bar", "orientation": "h", "y": names, "name": "mean",
                "x": [line.final.mean for line in lines if line.final],
                "marker": {"color": colors, "opacity": 0.75},
            },
            {
                "type": "scatter", "mode": "markers", "name": "seed",
                "x": [value for value, _ in dots], "y": [name for _, name in dots],
                "marker": {"color": COLORS[6], "size": 6},
            },
        ],
        layout={"hovermode": "closest", "showlegend": False, "xaxis": {"rangemode": "tozero"}},
        height=90 + 26 * len(lines),
    )  # fmt: skip


def _over_blocks(tables: Mapping[str, Numbers], study: Study | None) -> list[Section]:
    reference = study.reference if study else None
    summary = summarize(tables, reference=reference)[ALL]
    sections = [
        Section(title="Overview", blocks=[_heat_map(tables, summary.reference)]),
        Section(title=f"{summary.reference} against each row", blocks=[_against(summary.against)]),
    ]
    if summary.ranks is not None:
        sections.append(Section(title="Ranks", blocks=[_ranks(summary)]))
    return sections


def _heat_map(tables: Mapping[str, Numbers], reference: str) -> Chart:
    rows = list(dict.fromkeys(line.name for table in tables.values() for line in table.lines))
    shades, texts = [], []
    for table in tables.values():
        found = log_ratios(table, reference)
        lines = table.by_name
        digits = table_text.decimals(table)
        shades.append([found.get(row, math.nan) for row in rows])
        texts.append(
            [
                f"{one.final.mean:.{digits}f}" if (one := lines.get(row)) and one.final else "–"
                for row in rows
            ]
        )
    widest = widest_of([ratio for some in shades for ratio in some])
    return Chart(
        title=f"Means; colour: the ratio to {reference}, blue is better",
        traces=[
            {
                "type": "heatmap", "x": rows, "y": list(tables), "text": texts,
                "z": np.clip(shades, -widest, widest),
                "texttemplate": "%{text}", "hovertemplate": "%{y}<br>%{x}: %{text}<extra></extra>",
                "zmin": -widest, "zmax": widest, "showscale": False, "xgap": 1, "ygap": 1,
                "colorscale": [[0, "#3f97cc"], [0.5, "#f4f4f4"], [1, "#e2792c"]],
                "textfont": {"color": "#1d2026"},
            }
        ],
        layout={
            "hovermode": "closest", "yaxis": {"autorange": "reversed", "showgrid": False},
            "xaxis": {"side": "top", "showgrid": False, "tickangle": -35},
        },
        height=130 + 26 * len(tables),
    )  # fmt: skip


def _against(found: pd.DataFrame) -> Table:
    frame = found.drop(columns=["metric"]).astype(object)
    frame["p"] = [show_p(p) for p in frame["p"]]
    frame.columns = [str(name).replace("_", " ") for name in frame.columns]
    note = (
        "wins, ties, losses: blocks in which the reference is better, level, worse in the mean; "
        f"clear: significantly so (Holm-corrected p < {SIGNIFICANT}); gain: the mean difference "
        "over n blocks, positive where the reference is better; p: exact Wilcoxon test over them"
    )
    return Table(frame=frame, note=note, digits={"gain": 4})


def _ranks(summary: Any) -> Chart:
    ranks = summary.ranks
    names = list(ranks.means)[::-1]
    means = [ranks.means[name] for name in names]
    half = ranks.critical / 2
    colors = [COLORS[1] if name == summary.reference else COLORS[0] for name in names]
    return Chart(
        title=(
            f"Mean rank over {len(ranks.blocks)} blocks, 1 is best; bars that overlap: no "
            "significant difference (Nemenyi)"
        ),
        traces=[
            {
                "type": "scatter", "mode": "markers", "x": means, "y": names, "name": "mean rank",
                "marker": {"size": 10, "color": colors},
                "error_x": {"type": "constant", "value": half, "thickness": 2, "width": 5,
                            "color": COLORS[6]},
            }
        ],
        layout={"hovermode": "closest", "xaxis": {"title": {"text": "mean rank"}}},
        height=110 + 26 * len(names),
    )  # fmt: skip


def _curves(table: Numbers, folder: Path) -> list[Block]:
    """Return the validation curves of each row: means over its seeds, as in `band`."""
    name = f"valid/{table.metric.partition('/')[2]}"
    traces = []
    for number, row in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        found = band([read_run(path) for path in members_of(row)], name)
        if found is None or found.steps.size < 2:
            continue
        steps, values = thin(found.steps, found.mean)
        label = _name_of(row, table)
        traces.append(
            {
                "type": "scatter", "mode": "lines", "name": label, "x": steps, "y": values,
                "line": {"color": COLORS[number % len(COLORS)], "width": 2},
            }
        )  # fmt: skip
    if not traces:
        return []
    layout = {"xaxis": {"title": {"text": "training step"}}}
    title = (
        f"{name.replace('/', ' ')}, mean over seeds; a run that ended early counts with its "
        "final value"
    )
    return [Chart(title=title, traces=traces, layout=layout, height=380)]


def _name_of(folder: Path, table: Numbers) -> str:
    names = {Row(name=line.name).slug: line.name for line in table.lines}
    return names.get(folder.name, folder.name)
