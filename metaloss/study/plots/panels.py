"""What the journal of a run holds, in the order in which pictures and reports show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaloss.core.storage.run_folder import PHASES, RunFolder
from metaloss.study.plots.style import SPLITS

_HIDDEN = ("rate", "time")
_TITLES = {
    "task_loss": "task loss",
    "loss": "learned loss",
    "gradient_norm": "norm of the meta-gradient",
    "cosine_to_exact": "cosine with the exact meta-gradient",
    "misfit": "start: misfit to the task loss",
}
_STEPS = {"train": "training step", "offline": "offline meta-step", "start": "step of the start"}


def title_of(quantity: str) -> str:
    """Return the title of a panel."""
    return _TITLES.get(quantity, quantity.replace("_", " "))


def panels_of(run: RunFolder) -> dict[str, list[str]]:
    """Return the names that share a panel, by quantity: the metric first, then the losses."""
    order, known = list(SPLITS), list(_TITLES)
    panels: dict[str, list[str]] = {}
    for name in run.names():
        split, _, quantity = name.partition("/")
        if quantity and split not in _HIDDEN and np.isfinite(run.series(name)[1]).any():
            panels.setdefault(quantity, []).append(name)
    for names in panels.values():
        splits = {name: name.partition("/")[0] for name in names}
        names.sort(key=lambda name: [*order, splits[name]].index(splits[name]))
    ranks = {quantity: known.index(quantity) if quantity in known else -1 for quantity in panels}
    return {quantity: panels[quantity] for quantity in sorted(panels, key=lambda q: (ranks[q], q))}


def phases_of(run: RunFolder, names: Sequence[str]) -> list[str]:
    """Return the phases that logged any of these names, in order."""
    logged = {row.phase for row in run.journal if not row.numbers.keys().isdisjoint(names)}
    return [phase for phase in PHASES if phase in logged]


def steps_of(run: RunFolder, phases: Sequence[str]) -> tuple[str, dict[str, int]]:
    """Return the label of a panel's x-axis, and what is added to the steps of each phase.

    In a panel of one phase, the steps are that phase's own.
    """
    if len(phases) == 1:
        return _STEPS[phases[0]], {phases[0]: 0}
    return "step, all phases", {phase: run.phase_start(phase) for phase in phases}


def name_of(run: RunFolder) -> str:
    """Return what a run is called: its task, model, loss, schedule and seed."""
    parts = [
        str(chosen["name"])
        for group in ("task", "model", "loss", "schedule")
        if isinstance(chosen := run.config.get(group), dict) and "name" in chosen
    ]
    if "seed" in run.config:
        parts.append(f"seed {run.config['seed']}")
    return " · ".join(parts) or run.path.name


def events_of(run: RunFolder) -> list[dict[str, Any]]:
    """Return what the guard did, each with its step, reason and action."""
    events = (run.summary or {}).get("guard_events")
    listed = events if isinstance(events, list) else []
    return [event for event in listed if isinstance(event, dict)]
