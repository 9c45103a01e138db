"""Groups run folders into rows: runs whose configs differ only in the seed are one row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaloss.core.storage.run_folder import CONFIG, FIRST, PASSES, RunFolder, read_run
from metaloss.errors import MetalossError
from metaloss.study.launch.jobs import Job, flatten
from metaloss.study.tables.table import Group


def groups_of_jobs(jobs: Sequence[Job]) -> tuple[list[Group], list[str]]:
    """Return a study's finished runs by row, and notes on files that could not be read."""
    runs = {(job.row, job.seed): read_run(job.folder) for job in jobs}
    configs = {job.row: job.config for job in jobs}
    rows: dict[str, dict[int, RunFolder]] = {}
    for (row, seed), run in runs.items():
        if run.summary is not None:
            rows.setdefault(row, {})[seed] = run
    groups = [_group(row, flatten(configs[row]), found) for row, found in rows.items()]
    return groups, [note for run in runs.values() for note in run.notes]


def runs_in(folder: Path) -> list[Path]:
    """Return the folders of all runs in a folder: of a sweep, a comparison, or the run itself.

    The folder itself if there is none. The first of two passes is part of its run.
    """
    if (folder / CONFIG).is_file():
        return [folder]
    found = [path.parent for path in folder.rglob(CONFIG)]
    inside = {passes.with_name(FIRST) for passes in folder.rglob(PASSES)}
    found = [path for path in found if not inside & {path, *path.parents}]
    # Jobs of a sweep are numbered: 2 before 10.
    found.sort(key=lambda path: [(len(part), part) for part in path.relative_to(folder).parts])
    return found or [folder]


def groups_of_folders(folders: Sequence[Path]) -> tuple[list[Group], list[str]]:
    """Return runs grouped by config without the seed, and notes on runs that were left out.

    Rows are in the order of their first folders. Their names are the values in which they differ,
    such as ``schedule=online, inner.lr=0.1``.

    Raises:
        MetalossError: If a folder has no run, a config cannot be read, or two runs have the same
            config and seed.
    """
    runs = [read_run(folder) for folder in folders]
    rows: dict[str, dict[int, RunFolder]] = {}
    configs: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run.summary is None:
            continue
        config = flatten(run.config)
        seed = config.pop("seed", None)
        if not isinstance(seed, int):
            raise MetalossError(
                f"{run.path}: its config.yaml cannot be read: {'; '.join(run.notes)}"
            )
        key = json.dumps(config, sort_keys=True, default=str)
        found, configs[key] = rows.setdefault(key, {}), config
        if seed in found:
            raise MetalossError(
                f"{found[seed].path} and {run.path} are the same run twice (seed {seed})"
            )
        found[seed] = run
    names = distinguishing_names(list(configs.values()))
    groups = [
        _group(name, configs[key], found)
        for name, (key, found) in zip(names, rows.items(), strict=True)
    ]
    return groups, [note for run in runs for note in run.notes]


def distinguishing_names(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Return a short name for each flat configuration: the values in which it differs.

    Example:
        >>> same = {"loss.name": "mlp", "steps": 100}
        >>> distinguishing_names([same | {"inner.lr": 0.1}, same | {"inner.lr": 0.2}])
        ['inner.lr=0.1', 'inner.lr=0.2']
    """
    if len(configs) == 1:
        parts = {part: configs[0].get(f"{part}.name") for part in ("schedule", "loss")}
        return [", ".join(f"{part}={name}" for part, name in parts.items() if name) or "runs"]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    keys.sort(
        key=lambda key: not key.endswith(".name")
    )  # a stable sort: choices first, then options

    def told(config: dict[str, Any], key: str) -> bool:
        # An option is compared only between configs that chose the same part, because another part
        # has other options anyway.
        part = key if key.endswith(".name") else key.partition(".")[0] + ".name"
        rivals = [c for c in configs if key == part or c.get(part) == config.get(part)]
        return key in config and any(other.get(key) != config[key] for other in rivals)

    return [
        ", ".join(f"{key.removesuffix('.name')}={one[key]}" for key in keys if told(one, key))
        for one in configs
    ]


def _group(name: str, config: Mapping[str, Any], runs: Mapping[int, RunFolder]) -> Group:
    static = config.get("schedule.name") == "static"
    return Group(name=name, static=static, runs=dict(sorted(runs.items())))
