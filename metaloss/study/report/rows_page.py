"""The part of a run's report that needs its model and its rows: test results and suspect rows."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from metaloss.core.runs.evaluate import Evaluation
from metaloss.core.runs.load import load_run
from metaloss.core.runs.results import Run
from metaloss.core.runs.suspects import quality, suspects_of
from metaloss.errors import MetalossError
from metaloss.study.plots.suspects_plot import has_pictures, visible
from metaloss.study.report.page import Block, Chart, Pictures, Section, Table, Words

_SUSPECTS, _PICTURES = 100, 48


def row_sections(folder: Path) -> list[Section]:
    """Return the sections of a finished run's rows.

    If the rows of the run cannot be read, or have changed, a line says so instead.
    """
    try:
        run = load_run(folder)
    except MetalossError:  # not finished, diverged, or with a model of the user's own
        return []
    return [
        Section(title="Test rows", blocks=_or_reason(lambda: _test(run.evaluate()))),
        Section(title="Suspect rows", blocks=_or_reason(lambda: _suspects(run))),
    ]


def _or_reason(blocks: Callable[[], list[Block]]) -> list[Block]:
    try:
        return blocks()
    except MetalossError as error:
        return [Words(text=f"Not shown: {error}.")]


def _test(found: Evaluation) -> list[Block]:
    facts = {"rows": f"{found.rows:,}"}
    facts |= {name.replace("_", " "): f"{value:.4g}" for name, value in found.metrics.items()}
    blocks: list[Block] = [Words(facts=facts)]
    if found.confusion is not None and found.classes is not None:
        blocks.append(_confusion(found.confusion, found.classes))
    return blocks


def _confusion(counts: np.ndarray, classes: list[str]) -> Chart:
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [str(name) for name in classes]
    few = len(names) <= 20
    return Chart(
        title="Counts of true classes (rows) by predicted classes (columns)",
        traces=[
            {
                "type": "heatmap", "z": shares, "x": names, "y": names, "text": counts,
                "texttemplate": "%{text}" if few else "", "showscale": False,
                "xgap": 1, "ygap": 1, "zmin": 0, "zmax": 1,
                "colorscale": [[0, "#f4f4f4"], [1, "#3f97cc"]], "textfont": {"color": "#1d2026"},
                "hovertemplate": "%{y} as %{x}: %{text}, %{z:.1%}<extra></extra>",
            }
        ],
        layout={
            "hovermode": "closest",
            "xaxis": {"type": "category", "showgrid": False, "title": {"text": "predicted"}},
            "yaxis": {
                "type": "category", "showgrid": False, "autorange": "reversed",
                "title": {"text": "true"},
            },
        },
        height=120 + 26 * min(len(names), 24),
    )  # fmt: skip


def _suspects(run: Run) -> list[Block]:
    table, task = suspects_of(run.folder, run.model, run.pipeline)
    shown = table.head(_SUSPECTS)
    said = f"The {len(shown)} of {len(table):,} training rows with the most doubtful label."
    if (found := quality(table)) is not None:
        said += (
            f" The task made {found['wrong labels']:.0f} labels wrong: AUROC {found['auroc']:.3f}, "
            f"and {found['precision']:.1%} of as many rows with the highest scores are wrong."
        )
    blocks: list[Block] = [Words(text=said)]
    inputs = task.train.inputs
    if has_pictures(table, inputs):
        tiles = [
            (_png(visible(inputs[index].numpy())), f"{row['given']} → {row['suggested']}")
            for index, row in shown.head(_PICTURES).iterrows()
        ]
        blocks.append(Pictures(shown=tiles))
    digits = dict.fromkeys(("score", "p", "wrong", "last", "error"), 3)
    frame = pd.DataFrame(shown.to_dict("list")).astype(object)
    note = "score: how doubtful the label is; p: its mean probability over training"
    blocks.append(Table(frame=frame, digits=digits, note=note if "p" in frame else ""))
    return blocks


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray((255 * image).round().astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()
