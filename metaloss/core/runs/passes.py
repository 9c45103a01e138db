"""Both passes of ``schedule=replay`` in one command: an online run, then the replay of it.

The folder of the run has the first pass in ``first/``, and in ``passes.yaml`` what both were asked
to be, so that a stopped run can be resumed from the first of its files on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from metaloss.compose import to_yaml
from metaloss.config import RunConfig, Selected
from metaloss.contracts import Task
from metaloss.core.distributed.launch import joined, refuse_several
from metaloss.core.parts.blame import told
from metaloss.core.parts.custom import with_custom
from metaloss.core.parts.replayed import check_recordable
from metaloss.core.parts.setup import Setup
from metaloss.core.runs.begin import begin_runs
from metaloss.core.runs.opening import check_empty, default_folder
from metaloss.core.runs.results import Run
from metaloss.core.runs.resume import config_in, resume_runs
from metaloss.core.storage.files import read_json, write_atomically, write_json
from metaloss.core.storage.run_folder import (
    CONFIG,
    FIRST,
    PASSES,
    SUMMARY,
    members_of,
    read_summary,
)
from metaloss.errors import DivergedError, MetalossError
from metaloss.losses.base import LearnedLoss
from metaloss.schedules.replay import Replay


def train_runs(
    config: RunConfig,
    *,
    task: Task | None = None,
    model: nn.Module | None = None,
    loss: LearnedLoss | None = None,
    plugins: Mapping[str, str] | None = None,
) -> list[Run]:
    """Train the runs of a resolved config; see :func:`metaloss.train`.

    With ``schedule=replay`` and no source, the first pass is trained before. ``plugins``: SHA-256
    by file name.
    """
    given: dict[str, Any] = {"task": task, "model": model, "loss": loss, "plugins": plugins}
    options = config.schedule.options
    if not isinstance(options, Replay) or options.source:
        return begin_runs(config, **given)
    if loss is not None:
        raise MetalossError(
            "schedule=replay with a loss of your own and no schedule.source: train with "
            "schedule=online first"
        )
    if config.record_phi < 1:
        raise MetalossError(
            "record_phi=0 with schedule=replay and no schedule.source: expected a number ≥ 1"
        )
    config = with_custom(config, task, model, loss)
    if config.seeds > 1:
        refuse_several(f"seeds={config.seeds}", "train the seeds one at a time, or in one process")
    with joined(config.device) as ranks, told():
        if ranks.leads and config.output:
            check_empty(Path(config.output))
        name = config.task.name if task is None else task.name
        output = ranks.same(Path(config.output or default_folder(config, name, config.seeds)))
    config = replace(config, output=str(output))

    def begins(setup: Setup) -> None:
        check_recordable(setup.loss, setup.task, setup.engine, options)
        if setup.ranks.leads:
            check_empty(output)  # another run may have begun in it since
            write_atomically(output / PASSES, to_yaml(config).encode())

    return _go_on(config, {}, given, begins)


def resume_passes(
    folder: str | Path,
    changes: Mapping[str, Any],
    *,
    plugins: Mapping[str, str] | None = None,
    task: Task | None = None,
    model: nn.Module | None = None,
    loss: LearnedLoss | None = None,
) -> list[Run]:
    """Resume runs, also in the first of two passes; see `metaloss.core.runs.resume.resume_runs`."""
    own: dict[str, Any] = {"task": task, "model": model, "loss": loss}
    given, folder = {**own, "plugins": plugins}, Path(folder)
    if members_of(folder) or not (folder / PASSES).is_file():
        return resume_runs(folder, changes, **given)
    changes = {name: value for name, value in changes.items() if value is not None}
    if "steps" in changes:
        raise MetalossError(
            f"--resume {folder} with steps: it is in the first of two passes, which have the same "
            "number of steps: leave it out"
        )
    config = replace(config_in(folder / PASSES, folder, own), **changes)
    return _go_on(config, changes, given)


def _go_on(
    config: RunConfig,
    changes: Mapping[str, Any],
    given: Mapping[str, Any],
    begins: Callable[[Setup], None] | None = None,
) -> list[Run]:
    """Begin, resume or skip the first pass, then begin the second.

    ``config`` is what both passes were asked to be, with a folder. ``changes`` are new values for a
    resumed run, ``given`` the user's objects and plugins. ``begins``: see `begin_runs`.
    """
    output = Path(str(config.output))
    first, seeds = output / FIRST, range(config.seed, config.seed + config.seeds)
    folders = [first / f"seed{seed}" for seed in seeds] if len(seeds) > 1 else [first]
    try:
        if not members_of(first):
            online = Selected(name="online", options=config.schedule.options.first)
            passed = replace(config, schedule=online, output=str(first))
            begin_runs(passed, **given, begins=begins)
        elif any(read_summary(folder) is None for folder in folders):
            resume_runs(first, changes, **given)
    except KeyboardInterrupt as interrupt:
        interrupt.args = tuple(str(one).replace(str(first), str(output)) for one in interrupt.args)
        raise
    diverged = {
        folder: replace(config, seed=seed, seeds=1, output=str(output / folder.relative_to(first)))
        for seed, folder in zip(seeds, folders, strict=True)
        if (read_summary(folder) or {}).get("status") == "diverged"
    }
    if diverged:
        which = ", ".join(map(str, diverged))
        rest = "; train the other seeds alone" if len(folders) > len(diverged) else ""
        with joined(config.device) as ranks:
            for folder, one in diverged.items() if ranks.leads else ():
                _end_with(folder, one)
            ranks.any(False)  # all processes wait until the files are written
            raise DivergedError(f"{which}: the first pass has diverged: no loss to replay{rest}")
    return begin_runs(config, **given, beside=(PASSES, FIRST))


def _end_with(folder: Path, config: RunConfig) -> None:
    """Write the results of a run whose first pass has diverged, as those of the run itself."""
    own = Path(str(config.output))
    write_json(own / SUMMARY, {**read_json(folder / SUMMARY), "schedule": config.schedule.name})
    # Last, because without it the run is still in its first pass.
    write_atomically(own / CONFIG, to_yaml(config).encode())
