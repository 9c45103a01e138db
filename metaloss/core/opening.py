"""What a run begins with: its folder, its trackers, its first event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from metaloss import registry
from metaloss.compose import to_dict, to_yaml
from metaloss.config import RunConfig
from metaloss.contracts import RunStarted
from metaloss.core.files import write_atomically, write_json
from metaloss.core.recorder import Quiet, Recorder
from metaloss.core.setup import Setup
from metaloss.errors import MetalossError
from metaloss.inner.ranks import ALONE, Ranks
from metaloss.tracking.fanout import Fanout


def check_empty(folder: Path) -> None:
    """Raise if a new run would write over something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MetalossError(
            f"output={folder} is not empty: choose another, or continue it with --resume {folder}"
        )


def open_folder(setup: Setup, folder: Path, plugins: Mapping[str, str] | None) -> Setup:
    """Write what a new run's folder begins with; return the setup that knows its folder."""
    setup = replace(setup, config=replace(setup.config, output=str(folder)))
    if not setup.ranks.leads:
        return setup
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "config.yaml", to_yaml(setup.config).encode())
        write_json(folder / "plugins.json", dict(plugins or {}))
    except OSError as error:
        raise MetalossError(f"output={folder} cannot be written: {error.strerror}") from error
    return setup


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
        resumed_from=resumed_from,
        group=group,
    )


def open_recorder(
    setup: Setup, folder: Path, fanout: Fanout, keep: Mapping[str, Any] | None = None
) -> Recorder:
    """Return what keeps a run's numbers: files in process 0, nothing in the others.

    ``keep``: what a checkpoint says of the files. All processes return when process 0 has its own.
    """
    kept = keep or {"files": None, "seconds": 0.0}
    if setup.ranks.leads:
        recorder = Recorder(folder, fanout.handle, kept["files"], kept["seconds"])
    else:
        recorder = Quiet(folder)
    setup.ranks.any(False)
    return recorder


def open_trackers(config: RunConfig, ranks: Ranks = ALONE) -> Fanout:
    """Make the trackers: before anything is written, since one may refuse its options.

    Of many processes, process 0 alone has any.
    """
    return Fanout(
        {
            name: registry.get("tracker", name).build(options)
            for name, options in config.tracker.items()
            if ranks.leads
        }
    )


def default_folder(setup: Setup) -> str:
    """Return a name for a run's folder: what it is, and when it began."""
    config = setup.config
    parts = (setup.task.name, config.model.name, config.loss.name, config.schedule.name)
    return f"runs/{'-'.join(parts)}-seed{config.seed}-{datetime.now():%Y%m%d-%H%M%S-%f}"
