"""Many seeds of one configuration at once: each with its own folder, journal and result."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from metaloss.compose import compose, to_overrides
from metaloss.config import RunConfig
from metaloss.contracts import Task
from metaloss.core.compilation.policy import without_compiler
from metaloss.core.distributed.launch import refuse_several
from metaloss.core.parts.blame import told
from metaloss.core.parts.custom import in_place_of_custom, with_custom
from metaloss.core.parts.setup import Setup, prepare
from metaloss.core.runs.group import check_stackable
from metaloss.core.runs.members import Member, begun, go, trackers_of
from metaloss.core.runs.opening import (
    CONFIG,
    MADE_OF,
    changed_plugins,
    check_empty,
    claimed,
    default_folder,
)
from metaloss.core.runs.results import Run
from metaloss.core.runs.run import as_it_was, check_nothing_is_lost
from metaloss.core.storage import checkpoint
from metaloss.core.storage.files import read_json
from metaloss.errors import MetalossError
from metaloss.losses.base import LearnedLoss


def train_seeds(
    config: Mapping[str, Any] | Sequence[str] = (),
    *,
    task: Task | None = None,
    model: nn.Module | None = None,
    loss: LearnedLoss | None = None,
) -> list[Run]:
    """Train ``seeds`` runs that differ in their seed alone, in one vectorised program.

    Each has the numbers that it would have alone, but for rounding, and a folder of its own:
    ``output/seed0``, ``output/seed1`` and so on, from ``seed`` on.

    Args:
        config: As for :func:`metaloss.train`, with ``seeds=N``.
        task: As for :func:`metaloss.train`; the same rows for every seed.
        model: As for :func:`metaloss.train`; every seed begins with its weights.
        loss: As for :func:`metaloss.train`.

    Raises:
        MetalossError: If the request cannot be met; nothing was written by then.
        UnsupportedError: If the parts cannot be vectorised over seeds.

    Example:
        >>> import tempfile
        >>> words = ["seeds=2", "steps=5", "start.steps=5", "tracker=[]"]
        >>> runs = train_seeds([*words, f"output={tempfile.mkdtemp()}"])
        >>> [(run.folder.name, run.summary["seed"]) for run in runs]
        [('seed0', 0), ('seed1', 1)]
    """
    words = to_overrides(config) if isinstance(config, Mapping) else list(config)
    return train_group(compose(words), task=task, model=model, loss=loss)


@told()
def train_group(
    config: RunConfig,
    *,
    task: Task | None = None,
    model: nn.Module | None = None,
    loss: LearnedLoss | None = None,
    plugins: Mapping[str, str] | None = None,
) -> list[Run]:
    """Do what :func:`train_seeds` does. ``plugins``: SHA-256 by file name."""
    refuse_several(f"seeds={config.seeds}", "train the seeds one at a time, or in one process")
    config = with_custom(config, task, model, loss)
    seeds = range(config.seed, config.seed + config.seeds)
    if config.output:
        for seed in seeds:
            check_empty(Path(config.output) / f"seed{seed}")  # before the rows are read
    setups = [
        prepare(replace(config, seed=seed), task=task, model=model, loss=loss) for seed in seeds
    ]
    check_stackable(setups)
    group = Path(config.output or f"{default_folder(setups[0])}-and-{config.seeds - 1}-more")
    folders = [group / f"seed{seed}" for seed in seeds]
    with ExitStack() as claims:
        for folder in folders:
            claims.enter_context(claimed(folder))
        return go(begun(setups, folders, plugins))


@told()
def resume_group(
    folder: str | Path,
    *,
    plugins: Mapping[str, str] | None = None,
    task: Task | None = None,
    model: nn.Module | None = None,
    loss: LearnedLoss | None = None,
) -> list[Run]:
    """Go on with the unfinished runs of a group, from the last place that all of them saved.

    Runs that were stopped before they all had a checkpoint begin anew, together.

    Args:
        folder: Of the group: it holds ``seed0``, ``seed1`` and so on.
        plugins: SHA-256 by file name, for the summaries.
        task: The user's own objects, where the runs were made with them (also model and loss).
        model: As above.
        loss: As above.

    Raises:
        MetalossError: If nothing is unfinished, or there is no place to go on from.
    """
    folder = Path(folder)
    refuse_several(f"--resume {folder}", "go on with its seeds one at a time, or in one process")
    found = [path for path in sorted(folder.glob("seed*")) if (path / CONFIG).is_file()]
    paths = [path for path in found if not (path / "summary.json").is_file()]
    missing = _missing(folder, found)
    if not paths and not missing:
        raise MetalossError(f"--resume {folder}: all {len(found)} runs in it are finished")
    configs = [_config(path, path, task, model, loss) for path in paths]
    configs += [
        replace(_config(found[0], path, task, model, loss), seed=seed)
        for path, seed in missing.items()
    ]
    paths += missing
    # Their frozen weights may have to be replaced.
    setups = [
        prepare(config, task=task, model=copy.deepcopy(model), loss=loss) for config in configs
    ]
    check_stackable(setups)
    found_at = [_newest(setup, path) for setup, path in zip(setups, paths, strict=True)]
    places = [
        None if path in missing else place for path, (place, _) in zip(paths, found_at, strict=True)
    ]
    begins = None in places
    if begins and any(places):
        raise MetalossError(
            f"--resume {folder}: not every run in it has a checkpoint; go on with one at a time"
        )
    place = 0 if begins else min(place for place in places if place is not None)
    members = []
    for setup, path, fanout, (_, messages) in zip(
        setups, paths, trackers_of(configs[0], len(paths)), found_at, strict=True
    ):
        if path in missing:
            members += begun([setup], [path], plugins, [fanout], of=found[0])
            continue
        content = None
        if not begins:
            content, messages = checkpoint.load_newest(
                path / "checkpoints", setup.device, setup.start_total + place
            )
            if content is None or _place(content) != place:
                raise MetalossError(
                    f"--resume {folder}: {path.name} has no checkpoint after {place} steps, where "
                    "the others stand; go on with one at a time"
                )
        made, more = as_it_was(setup, path, content)
        members.append(
            Member(
                setup=setup,
                folder=path,
                fanout=fanout,
                made=made,
                content=content,
                messages=[*changed_plugins(path, plugins), *messages, *more],
                plugins=plugins or {},
            )
        )
    return go(members)


def _config(
    source: Path,
    folder: Path,
    task: Task | None,
    model: nn.Module | None,
    loss: LearnedLoss | None,
) -> RunConfig:
    """Return the configuration of a member as one of its group left it."""
    words = in_place_of_custom(source, task, model, loss)
    config = without_compiler(compose(words, source / CONFIG))
    return replace(with_custom(config, task, model, loss), output=str(folder))


def _missing(folder: Path, found: Sequence[Path]) -> dict[Path, int]:
    """Return the members that a group was killed before making, with their seeds."""
    group = read_json(found[0] / MADE_OF).get("group") if found else None
    if group is None:
        return {}
    paths = {folder / f"seed{seed}": seed for seed in range(group[0], sum(group))}
    return {path: seed for path, seed in paths.items() if path not in found}


def _newest(setup: Setup, path: Path) -> tuple[int | None, list[str]]:
    """Return how many steps a member's newest checkpoint stands at (None without), and messages."""
    content, messages = checkpoint.load_newest(path / "checkpoints", setup.device)
    if content is None and not messages:
        check_nothing_is_lost(path)
    return None if content is None else _place(content), messages


def _place(content: Mapping[str, Any]) -> int:
    """Return how many steps were done when a checkpoint was written."""
    offline, train = content["progress"]
    return int(offline + train)
