"""Given run folders as rows: runs whose configs differ in the seed alone are one row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from metaloss.core.storage.run_folder import RunFolder, read_run
from metaloss.errors import MetalossError
from metaloss.study.launch.jobs import Job, flatten
from metaloss.study.tables.table import Group


def groups_of_jobs(jobs: Iterable[Job]) -> tuple[list[Group], list[str]]:
    """Return a study's finished runs by row, and notes on what could not be read of them."""
    rows: dict[str, dict[int, RunFolder]] = {}
    notes: list[str] = []
    static: dict[str, bool] = {}
    for job in jobs:
        run = read_run(job.folder)
        notes += run.notes
        if run.summary is not None:
            rows.setdefault(job.row, {})[job.seed] = run
            static[job.row] = _is_static(job.config)
    return [
        Group(name=name, static=static[name], runs=dict(sorted(runs.items())))
        for name, runs in rows.items()
    ], notes


def groups_of_folders(folders: Sequence[Path]) -> tuple[list[Group], list[str]]:
    """Return given runs, grouped by config without the seed, and notes on what was left out.

    Rows come in the order of their first folders and are named by what tells them apart, such as
    ``schedule=online, inner.lr=0.1``.

    Raises:
        MetalossError: If a folder holds no run, a config cannot be read, or two runs have the same
            config and seed.
    """
    found: dict[str, dict[int, RunFolder]] = {}
    configs: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for folder in folders:
        run = read_run(folder)
        notes += run.notes
        if run.summary is None:
            continue
        flat = flatten(run.config)
        seed = flat.pop("seed", None)
        if not isinstance(seed, int):
            raise MetalossError(f"{folder}: its config.yaml cannot be read: {'; '.join(run.notes)}")
        key = json.dumps(flat, sort_keys=True, default=str)
        runs = found.setdefault(key, {})
        if seed in runs:
            raise MetalossError(
                f"{runs[seed].path} and {folder} are the same run twice (seed {seed})"
            )
        runs[seed] = run
        configs[key] = flat
    names = distinguishing_names(list(configs.values()))
    return [
        Group(
            name=name,
            static=configs[key].get("schedule.name") == "static",
            runs=dict(sorted(runs.items())),
        )
        for name, (key, runs) in zip(names, found.items(), strict=True)
    ], notes


def distinguishing_names(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Return a short name for each flat configuration: the values that tell it from the others.

    Example:
        >>> same = {"loss.name": "mlp", "steps": 100}
        >>> distinguishing_names([same | {"inner.lr": 0.1}, same | {"inner.lr": 0.2}])
        ['inner.lr=0.1', 'inner.lr=0.2']
    """
    told: list[list[str]] = [[] for _ in configs]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    keys.sort(key=lambda key: not key.endswith(".name"))  # stable: choices first, then options
    for key in keys:
        group, _, option = key.rpartition(".")
        shown = group if option == "name" else key
        for config, words in zip(configs, told, strict=True):
            # An option is compared among those that chose the same part: another part's options
            # follow from the choice.
            part = key.partition(".")[0] + ".name"
            peers = [other for other in configs if other.get(part) == config.get(part)]
            rivals = configs if option == "name" else peers
            if key in config and any(other.get(key) != config[key] for other in rivals):
                words.append(f"{shown}={config[key]}")
    names = [", ".join(words) for words in told]
    if len(configs) == 1:
        first = configs[0]
        named = [
            f"{key}={first[f'{key}.name']}"
            for key in ("schedule", "loss")
            if f"{key}.name" in first
        ]
        return [", ".join(named) or "runs"]
    return names


def _is_static(config: Any) -> bool:
    return config.get("schedule", {}).get("name") == "static"
