"""The runs of a study, and the state of each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from metaloss.compose import compose, read_file, to_dict, to_overrides
from metaloss.compose.paths import absolute_path, is_path
from metaloss.config import RunConfig
from metaloss.core.storage.checkpoint import checkpoints_in
from metaloss.core.storage.run_folder import (
    CHECKPOINTS,
    CONFIG,
    PASSES,
    PHASES,
    JournalRow,
    has_nothing,
    members_of,
    read_summary,
)
from metaloss.errors import MetalossError
from metaloss.meta_optimizers.search import SearchRule
from metaloss.schedules.replay import Replay
from metaloss.study.launch.labels import labels_for
from metaloss.study.spec.spec import Row, Study

# Options that do not change the results of a run: its folder, its trackers, its device and how
# often it writes checkpoints.
IGNORED = ("output", "tracker", "device", "compile", "checkpoint_every")

Resolve = Callable[[tuple[str, ...]], RunConfig]


class State(Enum):
    """The state of a run."""

    missing = "missing"
    unfinished = "unfinished"
    finished = "finished"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a study.

    Attributes:
        row: The row's name.
        seed: The run's seed.
        overrides: The ``KEY=VALUE`` arguments of the run, with its seed.
        folder: The folder of the run.
        config: The resolved config as plain data.
        phases: The number of steps of each phase, in order. The start has none for a loss without
            parameters or with given ones.
        cost: A rough measure of its duration, in inner steps.
        state: Its state.
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
        """Return the total number of steps of the run over all phases.

        Args:
            row: Any row of its journal, which has the number of steps before its phase.
        """
        order = list(self.phases)
        left = order[order.index(row.phase) :]
        return row.step - row.phase_step + sum(self.phases[phase] for phase in left)


def plan_jobs(study: Study, out: Path, *, resolve: Resolve = compose) -> list[Job]:
    """Return every run of a study, in the order of rows and seeds. Nothing is changed.

    Args:
        study: The study, with chosen settings.
        out: Runs are in ``out/<row>/seed<k>``.
        resolve: Returns the config of ``KEY=VALUE`` arguments.

    Raises:
        MetalossError: If an argument is invalid, or a folder has a run with another config.
    """
    return [job for row in study.rows for job in plan_row(study, row, out / row.slug, resolve)]


def plan_row(study: Study, row: Row, folder: Path, resolve: Resolve = compose) -> list[Job]:
    """Return the runs of one row over the study's seeds, in ``folder/seed<k>``; see `plan_jobs`."""
    config = config_of(study, row, resolve)
    phases, cost = _phases(config), _cost(config)
    group, notes = folder.parent.absolute().name, " ".join(row.overrides)
    found = labels_for(config, group=group, job_type=row.name, notes=notes)
    labels = to_overrides({f"tracker.wandb.{name}": label for name, label in found.items()})
    jobs: list[Job] = []
    for seed in study.seeds:
        plain = to_dict(replace(config, seed=seed))
        jobs.append(
            Job(
                row=row.name,
                seed=seed,
                overrides=(*study.overrides(row, seed), *labels),
                folder=folder / f"seed{seed}",
                config=plain,
                phases=phases,
                cost=cost,
                state=state_of(folder / f"seed{seed}", plain),
            )
        )
    return jobs


def config_of(study: Study, row: Row, resolve: Resolve = compose) -> RunConfig:
    """Return the config of a row with the first seed of the study.

    Raises:
        MetalossError: If an argument is invalid.
    """
    try:
        return resolve(tuple(study.overrides(row, study.seeds[0])))
    except MetalossError as error:
        raise MetalossError(f"row {row.name!r}: {error}") from error


def state_of(folder: Path, config: Mapping[str, Any]) -> State:
    """Return the state of the run in a folder.

    Raises:
        MetalossError: If the folder has something else, or a run with another config.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return State.missing
    file = folder / (PASSES if is_in_first_pass(folder) else CONFIG)
    if not file.is_file():
        # Without a config, only the folder of a run that was killed at its beginning may be
        # replaced.
        if not folder.is_dir() or not has_nothing(folder):
            raise MetalossError(f"{folder} exists and is not the folder of a run: move it away")
        return State.unfinished
    found = read_file(file)
    different = differences(config, found)
    if different:
        key, wanted, got = different[0]
        more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
        raise MetalossError(
            f"{folder} was trained with {key}={got}; expected {key}={wanted}{more}: give "
            "another output folder, or delete this one"
        )
    return State.unfinished if read_summary(folder) is None else State.finished


def is_in_first_pass(folder: Path) -> bool:
    """Return whether a run, or a group, was stopped in the first of two passes."""
    return (folder / PASSES).is_file() and not members_of(folder)


def was_stopped(unit: Sequence[Job]) -> bool:
    """Return whether these seeds together were stopped in the first of two passes."""
    folder = unit[0].folder.parent
    if not is_in_first_pass(folder):
        return False
    group = {"seed": unit[0].seed, "seeds": len(unit)}
    return not differences({**unit[0].config, **group}, read_file(folder / PASSES))


def can_resume(folder: Path) -> bool:
    """Return whether an unfinished run has a checkpoint, or is in the first of two passes."""
    if (folder / PASSES).is_file():
        return True
    return any(checkpoints_in(folder / name) for name in (CHECKPOINTS, "search"))


def clear(folder: Path) -> None:
    """Remove an unfinished run that has no checkpoint."""
    if folder.exists():
        shutil.rmtree(folder)


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (key, wanted, found) for each difference of two configs that changes results.

    A wanted ``auto`` matches what it was resolved to. With ``schedule=replay`` and a source, the
    loss that was found is that of the recording. Without a source, it is what was asked for.

    Example:
        >>> differences({"steps": 5, "compile": "auto"}, {"steps": 7, "compile": "off"})
        [('steps', 5, 7)]
    """
    first, second = flatten(wanted), flatten(found)
    follows = all(
        one.get("schedule.name") == "replay" and one.get("schedule.source")
        for one in (first, second)
    )
    return [
        (key, first.get(key, "nothing"), second.get(key, "nothing"))
        for key in sorted({*first, *second}, key=lambda key: (not key.endswith(".name"), key))
        if first.get(key) != "auto"
        and first.get(key, _MISSING) != second.get(key, _MISSING)
        and not (follows and key.startswith("loss."))
        and not _same_file(key, first.get(key), second.get(key))
    ]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a config with dotted keys, without options that do not change the results."""
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
    """Return whether an option is a path that an older version did not make absolute."""
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
    schedule = config.schedule.options
    both = isinstance(schedule, Replay) and not schedule.source
    # A step with a meta-step costs about three plain ones (see Kemaev et al., arXiv 2505.00793).
    return sum(
        plan.unroll * (3 if plan.meta_step else 1)
        for one in ([schedule.first, schedule] if both else [schedule])
        for plan in one.plans(config.steps)
    )
