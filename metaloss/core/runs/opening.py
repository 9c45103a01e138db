"""The beginning of a run: its folder, its trackers, its first event."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from metaloss import registry
from metaloss.compose import to_dict, to_yaml
from metaloss.config import RunConfig
from metaloss.contracts import MetaBatch, RunStarted
from metaloss.core.parts.setup import Setup
from metaloss.core.storage.files import read_json, reason, write_atomically, write_json
from metaloss.core.storage.run_folder import (
    CONFIG,
    MADE_OF,
    PLUGINS,
    SCHEDULE,
    SUMMARY,
    has_nothing,
)
from metaloss.core.training.recorder import Quiet, Recorder
from metaloss.errors import MetalossError
from metaloss.inner.processes.ranks import Ranks
from metaloss.tracking.fanout import Fanout


def check_empty(folder: Path, beside: Collection[str] = ()) -> None:
    """Raise if a new run would overwrite files.

    Files of a run that was killed before it wrote ``config.yaml`` are ignored, and names that are
    ``beside`` it.
    """
    try:
        taken = folder.exists() and (not folder.is_dir() or not has_nothing(folder, beside))
    except OSError as error:
        raise MetalossError(f"output={folder} cannot be written: {reason(error)}") from error
    if taken:
        raise MetalossError(
            f"output={folder} is not empty: choose another, or continue it with --resume {folder}"
        )


@contextmanager
def claimed(folder: Path, ranks: Ranks, beside: Collection[str]) -> Iterator[None]:
    """Make the folder of a new run, and lock it against other new runs inside the block.

    Raises:
        MetalossError: If it is not empty, cannot be written, or is locked by another process.
    """
    if not ranks.leads:
        yield
        return
    check_empty(folder, beside)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise MetalossError(f"output={folder} cannot be written: {reason(error)}") from error
    try:
        _lock(number, folder)
        # Another run may have begun and ended in it before we had the lock.
        check_empty(folder, beside)
        yield
    finally:
        os.close(number)


def _lock(number: int, folder: Path) -> None:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise MetalossError(
            f"output={folder}: another run is just beginning in it: choose another folder"
        ) from error
    except OSError:
        pass  # a file system without locks for folders; perhaps it has one for the journal


def open_folder(
    setup: Setup, folder: Path, plugins: Mapping[str, str] | None, made: Mapping[str, Any]
) -> Setup:
    """Write the first files of a new run's folder; return the setup with this folder."""
    # One of many seeds can be resumed alone, so its config is that of a single run.
    setup = replace(setup, config=replace(setup.config, output=str(folder), seeds=1))
    if not setup.ranks.leads:
        return setup
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / PLUGINS, dict(plugins or {}))
    write_json(folder / MADE_OF, made)
    if setup.replayed is not None:
        write_atomically(folder / SCHEDULE, setup.replayed.content)
    # Last, because a folder with a config is a run that can be resumed.
    write_atomically(folder / CONFIG, to_yaml(setup.config).encode())
    return setup


def reopen_folder(setup: Setup, folder: Path, plugins: Mapping[str, str] | None) -> None:
    """Update the folder of a run that is resumed."""
    if not setup.ranks.leads:
        return
    write_atomically(folder / CONFIG, to_yaml(setup.config).encode())
    write_json(folder / PLUGINS, {**read_json(folder / PLUGINS), **(plugins or {})})
    try:
        (folder / SUMMARY).unlink(missing_ok=True)
    except OSError as error:
        raise MetalossError(f"--resume {folder}: cannot be written: {reason(error)}") from error


def changed_plugins(folder: Path, plugins: Mapping[str, str] | None) -> list[str]:
    """Return a message for each of the user's files that has changed since the run began."""
    before = {Path(path).name: found for path, found in read_json(folder / PLUGINS).items()}
    return [
        f"the plugin {path} has changed since the run began (its SHA-256 differs)"
        for path, found in (plugins or {}).items()
        if before.get(Path(path).name, found) != found
    ]


def started(
    setup: Setup, folder: Path, resumed_from: int | None, group: str | None = None
) -> RunStarted:
    """Return the first event of a run."""
    totals: dict[str, int] = {}
    if setup.start_total:
        totals["start"] = setup.start_total
    if setup.schedule.offline_total():
        totals["offline"] = setup.schedule.offline_total()
    totals["train"] = setup.config.steps
    return RunStarted(
        config=to_dict(setup.config),
        folder=folder,
        name=folder.name,
        totals=totals,
        goal=setup.task.goal,
        link=setup.task.link.name,
        resumed_from=resumed_from,
        group=group,
        # Without the line on the metric: the results show it.
        task="\n".join([*str(setup.task).splitlines()[:4], _meta_batch(setup)]),
    )


def _meta_batch(setup: Setup) -> str:
    """Return a line: which rows are the meta-batches, and which train the network."""
    schedule, task = setup.schedule, setup.task
    count, trains = len(task.valid.targets), schedule.train_on.name != "train"
    use = "train the network" if trains else "do not train the network"
    if task.jury:
        use += (
            f"; the jury's {len(task.jury.targets)} others choose which weights the run ends with"
        )
    if setup.replayed is not None:
        return f"meta-batch: none, {setup.replayed.said}; the {count} trusted rows {use}"
    if not schedule.learns:
        return f"meta-batch: none, the loss is fixed; the {count} trusted rows {use}"
    if schedule.meta_batch is MetaBatch.validation:
        return f"meta-batch: the {count} trusted rows move the learned loss; they {use}"
    return f"meta-batch: training rows move the learned loss; the {count} trusted rows {use}"


def open_recorder(
    setup: Setup, folder: Path, fanout: Fanout, keep: Mapping[str, Any] | None = None
) -> Recorder:
    """Return the recorder of a run: it writes files in process 0, and nothing in the others.

    ``keep``: a checkpoint. All processes wait until process 0 has its recorder.
    """
    if setup.ranks.leads:
        recorder = Recorder(folder, fanout.handle, keep)
    else:
        recorder = Quiet(folder)
    setup.ranks.any(False)
    return recorder


def open_trackers(config: RunConfig, ranks: Ranks) -> Fanout:
    """Make the trackers, before anything is written, because a tracker may refuse its options.

    Only process 0 has trackers.
    """
    return Fanout(
        {
            name: registry.get("tracker", name).build(options)
            for name, options in config.tracker.items()
            if ranks.leads
        }
    )


def default_folder(config: RunConfig, task: str, count: int) -> str:
    """Return a name for the folder of ``count`` runs, with the parts and the start time.

    ``config`` is that of the first run, ``task`` the name of its task.
    """
    parts = (task, config.model.name, config.loss.name, config.schedule.name)
    more = f"-and-{count - 1}-more" if count > 1 else ""
    return f"runs/{'-'.join(parts)}-seed{config.seed}-{datetime.now():%Y%m%d-%H%M%S-%f}{more}"
