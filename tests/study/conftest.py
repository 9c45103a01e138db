"""Run folders as the trainer writes them, made from formulas: nothing is trained."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from metaloss.compose import compose, to_yaml
from metaloss.config import RunConfig
from metaloss.study.tables.statistics import MeanStd
from metaloss.study.tables.table import Line, Table, refer, set_aside

START, OFFLINE = 2000, 2500


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How a run's test error goes: falls to ``low`` by a third of training, then to ``final``."""

    low: float = 0.08
    final: float = 0.39
    stop: int | None = None  # training step of an early stop
    status: str = "ok"
    events: tuple[dict[str, object], ...] = ()


def write_run(folder: Path, overrides: Sequence[str], shape: Shape | None = None) -> RunConfig:
    """Write a finished run's folder; return its config."""
    shape = shape or Shape()
    config = _composed(tuple(overrides))
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    draws = np.random.default_rng([config.seed, len("".join(overrides))])
    learns = config.schedule.name != "static"
    offline = config.schedule.options.offline_total()
    # A hand-made loss has no parameters, and so no start.
    start = config.start.options.total if learns else 0
    begin = start + offline
    journal, curves = [], []
    for step in range(100, start + 1, 100):
        row = {"step": step, "phase": "start", "phase_step": step}
        journal.append(row | {"start/misfit": math.exp(-step / 400)})
    for step in range(50, offline + 1, 50):
        place = {"step": START + step, "phase": "offline", "phase_step": step}
        curves.append(_curves(place, step / offline))
        journal.append(place | _losses(step / offline, draws))
    last = shape.stop or config.steps
    for step in range(0, last + 1, config.log_every):
        place = {"step": begin + step, "phase": "train", "phase_step": step}
        numbers = _losses(step / config.steps, draws) if step else {}
        if not learns:
            numbers.pop("meta/task_loss", None)
        if step % config.eval_every == 0 or step == last:
            error = _error(step / config.steps, shape) * draws.normal(1, 0.03)
            numbers |= {
                "valid/error": error * draws.normal(1.05, 0.02),
                "valid/task_loss": 3 * error,
                "test/error": error,
                "test/task_loss": 3.1 * error,
            }
            moved = step / config.steps if config.schedule.name == "online" else 0.0
            curves.append(_curves(place, moved, learned=learns))
        journal.append(place | numbers | {"time/seconds": step / 400})
    _write_lines(folder / "journal.jsonl", journal)
    _write_lines(folder / "curves.jsonl", curves)
    evaluated = [row for row in journal if "test/error" in row]
    best = min(evaluated, key=lambda row: row["valid/error"])
    final = best if shape.stop else evaluated[-1]
    summary = {
        "task": config.task.name,
        "schedule": config.schedule.name,
        "seed": config.seed,
        "steps": config.steps,
        "seconds": 10.0 + config.seed,
        "status": shape.status,
        "guard_events": list(shape.events),
        "goal": "min",
        "metrics": {name: final[name] for name in ("valid/error", "test/error")},
        "metrics_at_best_validation": {name: best[name] for name in ("valid/error", "test/error")},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return config


def _composed(words: tuple[str, ...]) -> RunConfig:
    """Compose once for all seeds: it is what takes time here."""
    seeds = [word for word in words if word.startswith("seed=")]
    config = _composed_once(tuple(word for word in words if word not in seeds))
    return replace(config, seed=int(seeds[-1].partition("=")[2])) if seeds else config


@cache
def _composed_once(words: tuple[str, ...]) -> RunConfig:
    return compose(words)


def set_metrics(folder: Path, final: float | None, best: float | None = None) -> None:
    """Replace a run's metrics by given ones."""
    summary = json.loads((folder / "summary.json").read_text())
    summary["metrics"] = {"valid/error": 0.5, "test/error": final, "test/task_loss": 0.1}
    summary["metrics_at_best_validation"] = {"test/error": final if best is None else best}
    (folder / "summary.json").write_text(json.dumps(summary))


def _error(share: float, shape: Shape) -> float:
    fall = 0.9 * math.exp(-share * 25) + shape.low
    return fall + (shape.final - shape.low) * max(0.0, share - 0.1) ** 0.7


def _losses(share: float, draws: np.random.Generator) -> dict[str, float]:
    noise = draws.normal(1, 0.05, size=4)
    return {
        "train/loss": noise[0] * (0.1 + 0.2 * math.exp(-8 * share)),
        "train/task_loss": noise[1] * (1.6 + 0.7 * math.exp(-8 * share)),
        "meta/task_loss": noise[2] * (0.3 + 2 * math.exp(-20 * share)),
        "meta/gradient_norm": noise[3] * math.exp(-5 * share) * 0.1,
    }


def _curves(place: dict[str, object], share: float, *, learned: bool = True) -> dict[str, object]:
    p = np.linspace(0.005, 0.995, 101)
    steep = 0.1 * (1 + 3 * share)
    flat = 1 - 0.8 * share
    one = -np.log(p) * flat * 0.1 + steep * (1 - p) ** (1 + share) + 0.1
    zero = -np.log(1 - p) * flat * 0.1 + steep * p ** (1 + 2 * share)
    if not learned:
        one, zero = -np.log(p), 0 * p
    return {
        "step": place["step"],
        "phase": place["phase"],
        "grid": p.tolist(),
        "curves": {"t=0": zero.tolist(), "t=1": one.tolist()},
    }


def _write_lines(path: Path, rows: Sequence[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def runs() -> SimpleNamespace:
    """What makes run folders: ``write_run``, ``set_metrics``, ``Shape``, a fast ``compose``."""
    return SimpleNamespace(
        write_run=write_run, set_metrics=set_metrics, Shape=Shape, compose=_composed
    )


def make_block(
    rows: dict[str, Sequence[float]],
    *,
    reference: str | None = None,
    goal: str = "min",
    metric: str = "test/error",
    aside: Sequence[str] = (),
) -> Table:
    """Return the table of one block from each row's values by seed."""
    lines = tuple(
        Line(
            name=name,
            n=len(values),
            final=MeanStd.of(values),
            best=None,
            valid=None,
            diverged=0,
            seconds=None,
            values={seed: v if math.isfinite(v) else None for seed, v in enumerate(values)},
        )
        for name, values in rows.items()
    )
    reference = reference or next(iter(rows))
    table = Table(metric=metric, goal=goal, reference=reference, lines=lines)
    return set_aside(refer(table, reference), aside)


@pytest.fixture
def block():
    """What makes a block's table: ``make_block``."""
    return make_block


@pytest.fixture
def made_up_runs(monkeypatch, runs):
    """Compare runs that were made up, and draw nothing."""
    monkeypatch.setattr("metaloss.study.compare.compose", runs.compose)
    monkeypatch.setattr(
        "metaloss.study.outputs.plot_comparison", lambda groups, table, path, **_: path
    )
