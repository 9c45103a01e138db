"""The report of one run: how it learned, what its loss became, what the guard did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from metaloss.core.storage.run_folder import RunFolder
from metaloss.study.launch.jobs import flatten
from metaloss.study.plots.loss_plot import limits_of, loss_over_time
from metaloss.study.plots.panels import events_of, panels_of, phases_of, steps_of, title_of
from metaloss.study.plots.style import log_marks, short, thin
from metaloss.study.report.page import COLORS, Block, Chart, Section, Slider, Table, Words
from metaloss.study.report.rows_page import row_sections

_MOMENTS = 60
_SPLITS = {"train": 0, "valid": 4, "test": 1, "meta": 2, "jury": 3, "start": 5}


def run_sections(run: RunFolder) -> list[Section]:
    """Return the sections of a run, finished or not."""
    charts = _learning(run)
    loss = _loss(run)
    sections = [Section(title="Result", blocks=[_result(run)])]
    if charts:
        sections.append(Section(title="Learning curves", blocks=charts, wide=False))
    if loss is not None:
        sections.append(Section(title="The loss over training", blocks=loss))
    sections += row_sections(run.path)
    sections.append(Section(title="Guard", blocks=[_guard(run)]))
    sections.append(Section(title="Configuration", blocks=[_configuration(run)]))
    return sections


def _result(run: RunFolder) -> Words:
    summary = run.summary
    if summary is None:
        return Words(text="The run has not finished.")
    facts = {"status": str(summary.get("status", "unknown"))}
    for part, when in (
        ("metrics", ""),
        ("metrics_at_best_validation", " at the best validation"),
        ("metrics_of_a_constant", " of a constant prediction"),
    ):
        for name, value in (summary.get(part) or {}).items():
            if "/" in name and isinstance(value, int | float):
                facts[name.replace("/", " ") + when] = short(float(value))
    facts["training steps"] = str(summary.get("steps", "–"))
    if isinstance(seconds := summary.get("seconds"), int | float):
        facts["seconds"] = f"{seconds:.1f}"
    worse = summary.get("learned_nothing") is True
    text = "The run is no better than the best constant prediction." if worse else ""
    return Words(text=text, facts=facts)


def _learning(run: RunFolder) -> list[Block]:
    charts: list[Block] = []
    for quantity, names in panels_of(run).items():
        phases = phases_of(run, names)
        label, offsets = steps_of(run, phases)
        traces = [trace for name in names for trace in _lines(run, name, offsets)]
        values = np.concatenate([np.asarray(trace["y"], dtype=float) for trace in traces])
        if len(values) < 2:
            continue
        layout = {
            "xaxis": {"title": {"text": label}},
            "yaxis": _scale(values),
            "shapes": _marks(run, run.phase_start(phases[0]) if len(phases) == 1 else 0),
        }
        charts.append(Chart(title=title_of(quantity), traces=traces, layout=layout, height=280))
    return charts


def _marks(run: RunFolder, offset: int) -> list[dict[str, Any]]:
    """Return a line at each step at which the guard did something."""
    steps = [event.get("step") for event in events_of(run)]
    return [
        {
            "type": "line", "xref": "x", "yref": "paper", "y0": 0, "y1": 1,
            "x0": step - offset, "x1": step - offset,
            "line": {"color": COLORS[5], "width": 1, "dash": "dot"},
        }
        for step in steps
        if isinstance(step, int | float) and step >= offset
    ]  # fmt: skip


def _lines(run: RunFolder, name: str, offsets: dict[str, int]) -> list[dict[str, Any]]:
    split = name.partition("/")[0]
    traces = []
    # A line for each phase: nothing leads from the end of one to the start of the next.
    for phase, offset in offsets.items():
        steps, values = run.series(name, phase=phase)
        if not np.isfinite(values).any():
            continue
        steps, values = thin(steps + offset, values)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines" if steps.size > 1 else "markers",
                "name": split if phase == "train" else f"{split}, {phase}",
                "x": steps,
                "y": values,
                "line": {
                    "color": COLORS[_SPLITS.get(split.removeprefix("ema_"), 6)],
                    "dash": "dash" if split.startswith("ema_") else "solid",
                    "width": 2,
                },
            }
        )
    return traces


def _scale(values: np.ndarray) -> dict[str, Any]:
    values = values[np.isfinite(values)]
    if not (subs := log_marks(values)):
        return {}
    decades = np.arange(np.floor(np.log10(values.min())), np.ceil(np.log10(values.max())) + 1)
    ticks = [float(sub * 10**decade) for decade in decades for sub in subs]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _loss(run: RunFolder) -> list[Block] | None:
    loss = loss_over_time(run, most=_MOMENTS)
    if loss is None:
        return None
    regression = len(loss.curves) == 1
    variable = "prediction ŷ" if regression else "probability p of the class"
    meaning = {"t=1": "the row's class (t = 1)", "t=0": "another class (t = 0)"}
    charts = []
    for slopes in (False, True):
        for label, curves in loss.curves.items():
            values = np.gradient(curves, loss.grid, axis=1) if slopes else curves
            of = "" if regression else f" of {meaning.get(label, label)}"
            charts.append(
                Chart(
                    title=f"{'slope of the loss' if slopes else 'loss'}{of}",
                    traces=_moving(loss.grid, values),
                    layout={
                        "xaxis": {"title": {"text": variable}},
                        "yaxis": {"range": limits_of([values], usual=0.92)},
                    },
                    height=260,
                )
            )
    step = "training step" if loss.in_training else "offline meta-step"
    said = loss.remark.capitalize()
    words = Words(text=f"{said}. Move the slider to see the loss at another {step}.")
    return [words, Slider(label=step, moments=loss.steps.tolist(), charts=charts)]


def _moving(grid: np.ndarray, values: np.ndarray) -> list[dict[str, Any]]:
    common = {"type": "scatter", "mode": "lines", "x": grid}
    faint = {"width": 1.5, "dash": "dot"}
    return [
        {**common, "name": "first", "y": values[0], "line": {"color": COLORS[6], **faint}},
        {**common, "name": "last", "y": values[-1], "line": {"color": COLORS[1], **faint}},
        {**common, "name": "now", "moments": values, "line": {"color": COLORS[0], "width": 3}},
    ]


def _guard(run: RunFolder) -> Block:
    events = events_of(run)
    if not events:
        return Words(text="The guard did not intervene.")
    keys = list(dict.fromkeys(key for event in events for key in event))
    rows = [[event.get(key) for key in keys] for event in events]
    return Table(frame=pd.DataFrame(rows, columns=keys, dtype=object))


def _configuration(run: RunFolder) -> Block:
    rows = [[key, str(value)] for key, value in flatten(run.config).items()]
    return Table(frame=pd.DataFrame(rows, columns=["option", "value"], dtype=object))
