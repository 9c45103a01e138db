"""The runs that a study needs, and how far each of them has come."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from metaloss.compose import compose, read_file, to_dict
from metaloss.compose.paths import absolute_path, is_path
from metaloss.config import RunConfig
from metaloss.core.storage.run_folder import (
    CHECKPOINTS,
    CONFIG,
    PHASES,
    JournalRow,
    has_nothing,
    read_summary,
)
from metaloss.errors import MetalossError
from metaloss.meta_optimizers.search import SearchRule
from metaloss.study.spec.spec import Row, Study

# Settings that do not make another run of it: where it lies, who watches it, where it computes,
# and how often it writes a checkpoint.
IGNORED = ("output", "tracker", "device", "compile", "checkpoint_every")

Resolve = Callable[[tuple[str, ...]], RunConfig]


class State(Enum):
    """How far a run has come."""

    missing = "missing"
    unfinished = "unfinished"
    finished = "finished"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a study.

    Attributes:
        row: The row's name.
        seed: The run's seed.
        overrides: ``KEY=VALUE`` words that make the run, its seed among them.
        folder: Where the run lies, or will.
        config: The resolved configuration as plain data.
        phases: Journal steps of each phase, in order. A loss without parameters, or with given
            ones, skips the start.
        cost: A rough measure of the time it takes: inner steps.
        state: How far it has come.
    """

    row: str
    seed: int
    overrides: tuple[str, ...]
    folder: Path
    config: Mapping[str, Any]
    phases: Mapping[str, int]
    cost: int
    state: State

    def steps(self, row: JournalRow) -> int:
        """Return the run's journal steps through all phases.

        Args:
            row: Any row of its journal: it tells how many steps came before its phase.
        """
        order = list(self.phases)
        left = order[order.index(row.phase) :]
        return row.step - row.phase_step + sum(self.phases[phase] for phase in left)


def plan_jobs(study: Study, out: Path, *, resolve: Resolve = compose) -> list[Job]:
    """Return every run of a study, in the order of rows and seeds; changes nothing.

    Args:
        study: What to compare, its rows' settings chosen.
        out: Runs lie in ``out/<row>/seed<k>``.
        resolve: Makes a configuration from words.

    Raises:
        MetalossError: If a word is wrong, or a folder holds a run with another configuration: it
            is never silently reused.
    """
    return [job for row in study.rows for job in plan_row(study, row, out / row.slug, resolve)]


def plan_row(study: Study, row: Row, folder: Path, resolve: Resolve = compose) -> list[Job]:
    """Return the runs of one row over the study's seeds, in ``folder/seed<k>``; see `plan_jobs`."""
    config = config_of(study, row, resolve)
    phases, cost = _phases(config), _cost(config)
    jobs: list[Job] = []
    for seed in study.seeds:
        plain = to_dict(replace(config, seed=seed))
        jobs.append(
            Job(
                row=row.name,
                seed=seed,
                overrides=tuple(study.overrides(row, seed)),
                folder=folder / f"seed{seed}",
                config=plain,
                phases=phases,
                cost=cost,
                state=state_of(folder / f"seed{seed}", plain),
            )
        )
    return jobs


def config_of(study: Study, row: Row, resolve: Resolve = compose) -> RunConfig:
    """Return a row's configuration with the study's first seed.

    Raises:
        MetalossError: If a word is wrong.
    """
    try:
        return resolve(tuple(study.overrides(row, study.seeds[0])))
    except MetalossError as error:
        raise MetalossError(f"row {row.name!r}: {error}") from error


def state_of(folder: Path, config: Mapping[str, Any]) -> State:
    """Return how far the run in a folder has come.

    Raises:
        MetalossError: If what lies there is no run, or a run with another configuration.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return State.missing
    if not (folder / CONFIG).is_file():
        # Without a config only a run that was killed in its first moments is ours to replace.
        if not folder.is_dir() or not has_nothing(folder):
            raise MetalossError(f"{folder} exists and is no run's folder: move it away")
        return State.unfinished
    found = read_file(folder / CONFIG)
    different = differences(config, found)
    if different:
        key, wanted, got = different[0]
        more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
        raise MetalossError(
            f"{folder} was trained with {key}={got}, asked for is {key}={wanted}{more}: give "
            "another output folder, or delete this one"
        )
    return State.unfinished if read_summary(folder) is None else State.finished


def can_resume(folder: Path) -> bool:
    """Whether an unfinished run has a checkpoint to go on from."""
    return any(any((folder / name).glob("*.pt")) for name in (CHECKPOINTS, "search"))


def clear(folder: Path) -> None:
    """Remove an unfinished run that has no checkpoint."""
    if folder.exists():
        shutil.rmtree(folder)


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (key, wanted, found) where two configurations differ in what a run is.

    A wanted ``auto`` matches what it was resolved to.

    Example:
        >>> differences({"steps": 5, "compile": "auto"}, {"steps": 7, "compile": "off"})
        [('steps', 5, 7)]
    """
    first, second = flatten(wanted), flatten(found)
    return [
        (key, first.get(key, "nothing"), second.get(key, "nothing"))
        for key in sorted({*first, *second}, key=lambda key: (not key.endswith(".name"), key))
        if first.get(key) != "auto"
        and first.get(key, _MISSING) != second.get(key, _MISSING)
        and not _same_file(key, first.get(key), second.get(key))
    ]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a configuration with dotted keys, without what does not make a run what it is."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if not prefix and key in IGNORED:
            continue
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _same_file(key: str, wanted: Any, found: Any) -> bool:
    """Return whether an option holds a path that an older version did not make absolute."""
    if not (is_path(key) and isinstance(wanted, str) and isinstance(found, str)):
        return False
    return absolute_path(found) == absolute_path(wanted)


_MISSING = object()


def _phases(config: RunConfig) -> dict[str, int]:
    search, schedule = config.meta_optimizer.options, config.schedule.options
    generations = search.generations if isinstance(search, SearchRule) else None
    offline = schedule.offline_total() if generations is None else generations
    return dict(zip(PHASES, (config.start.options.total, offline, config.steps), strict=True))


def _cost(config: RunConfig) -> int:
    search = config.meta_optimizer.options
    if isinstance(search, SearchRule):
        candidates = search.generations * search.population
        return config.steps + candidates * (search.fitness_steps + 3 * search.local_steps)
    # A step that learns costs about three plain ones (see Kemaev et al., arXiv 2505.00793).
    plans = config.schedule.options.plans(config.steps)
    return sum(plan.unroll * (3 if plan.meta_step else 1) for plan in plans)
