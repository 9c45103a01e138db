"""``--multirun``: several runs, by Hydra's runner with its launchers and sweepers."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from metaloss.cli import launcher, plugin_files
from metaloss.cli.options import BAD_REQUEST, DIVERGED, complain, report
from metaloss.compose import from_hydra, publish, read_file, root, to_dict, to_overrides, words
from metaloss.compose.explain import explain
from metaloss.compose.resolve import own_hydra, publish_chosen
from metaloss.config import RunConfig
from metaloss.errors import MetalossError

_LEDGER = "jobs.jsonl"


@dataclass(frozen=True)
class _OneJob:
    """The function that Hydra calls for each job, in this process or in a worker.

    Attributes:
        plugins: Files of ``--plugin``, which a worker imports too.
        swept: The keys that differ between jobs.
    """

    plugins: tuple[Path, ...]
    swept: frozenset[str] = frozenset()

    def __call__(self, composed: DictConfig) -> float:
        """Run one job and append its status to the sweep's ledger.

        Returns:
            The value that a searching sweeper minimizes: the last validation metric, negative if
            higher is better, infinite if the run diverged or could not begin.
        """
        place = HydraConfig.get()
        folder, number = Path(place.runtime.output_dir), int(place.job.num)
        status, value = BAD_REQUEST, math.inf
        try:
            hashes = plugin_files.load(self.plugins)
            keys = [word.partition("=")[0] for word in place.overrides.task]
            config = dataclasses.replace(from_hydra(composed, keys), output=str(folder))
            config = self._labelled(config, place)
            from metaloss.allocator import keep_freed_memory

            keep_freed_memory()  # also in the worker of a launcher
            summary = _trained(config, folder, hashes)
            status = report(folder, summary)
            value = math.inf if status == DIVERGED else _objective(summary)
        except MetalossError as error:
            complain(f"job {number}: {error}")
        line = {"job": number, "folder": str(folder), "status": status}
        _append(Path(place.sweep.dir) / _LEDGER, json.dumps(line) + "\n")
        return value

    def _labelled(self, config: RunConfig, place: Any) -> RunConfig:
        """Return the config with names in trackers: the sweep is a group, its words are rows."""
        from metaloss.study.launch.labels import labelled

        words = [word for word in place.overrides.task if word.partition("=")[0] in self.swept]
        row = " ".join(word for word in words if not word.startswith("seed="))
        group = Path(place.sweep.dir).name
        return labelled(config, group=group, job_type=row, notes=" ".join(place.overrides.task))


def _trained(config: RunConfig, folder: Path, plugins: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the summary of a job's run: already finished, resumed, or trained.

    Raises:
        MetalossError: If the folder has another job's run, or if the run cannot begin.
    """
    from metaloss.core.runs.run import train_run
    from metaloss.core.storage.run_folder import read_summary
    from metaloss.study.launch.jobs import State, can_resume, clear, state_of

    state = state_of(folder, to_dict(config))
    summary = read_summary(folder)
    if state is State.finished and summary is not None:
        return summary
    if state is State.unfinished:
        if can_resume(folder):
            from metaloss.core.runs.run import resume_run

            return resume_run(folder, plugins=plugins).summary.as_dict()
        clear(folder)
    return train_run(config, plugins=plugins).summary.as_dict()


def sweep(given: Sequence[str], file: Path | None, plugins: Sequence[Path]) -> int:
    """Run all jobs of a sweep; return the largest exit status.

    If the folder has jobs of the same sweep, finished ones are kept, and others are resumed from
    their checkpoints.

    Args:
        given: ``KEY=VALUE`` words, some with several values, and words for Hydra's launcher and
            sweeper. ``output`` is the folder of the jobs' folders.
        file: A run's ``config.yaml`` to begin from.
        plugins: Files of ``--plugin``.

    Raises:
        MetalossError: If a word is invalid for any job; then no job begins. Values of a valid type
            that a part refuses only fail their own job.
    """
    overrides = words.parse(given, sweep=True)
    launcher.offer(overrides)
    values = read_file(file) if file else {}
    output = values.pop("output", None)
    for override in overrides:
        if override.key_or_group == "output":
            output = override.value()
            if override.is_sweep_override():
                raise MetalossError("output has several values: expected one folder for all jobs")
    folder = _folder_of(output)
    settings = [
        "hydra.mode=MULTIRUN",
        *to_overrides({"hydra.sweep.dir": folder}),
        # No files of Hydra in a run's folder, and no logging of Hydra.
        "hydra.output_subdir=null",
        "hydra.job.chdir=false",
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
    ]
    swept = frozenset(o.key_or_group for o in overrides if o.is_sweep_override())
    rest = words.for_hydra(o for o in overrides if o.key_or_group != "output")
    with publish.lock:
        # Workers import all published parts, so publish only the parts that jobs may choose.
        publish_chosen(overrides)
        if any(_chooses_later(override) for override in overrides):
            publish.publish_all()
        with root(values, str(file)) as name, own_hydra() as hydra:
            try:
                hydra.multirun(
                    config_name=name,
                    task_function=_OneJob(tuple(path.resolve() for path in plugins), swept),
                    overrides=[*settings, *rest],
                )
            except (HydraException, OmegaConfBaseException) as error:
                raise explain(error) from error
    statuses = list(_statuses(folder))
    _print_table(folder)
    print(f"{folder}: {len(statuses)} jobs, {statuses.count(0)} of them finished")
    return max(statuses, default=BAD_REQUEST)


def _print_table(folder: Path) -> None:
    """Print the table of the finished jobs. It is an extra: what it cannot compare is left out."""
    from metaloss.study.outputs import print_table
    from metaloss.tracking.quiet_console import QuietConsole

    with suppress(MetalossError):
        print_table(folder, QuietConsole())


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        # Without a lock, machines that share a file system may overwrite each other's lines.
        with suppress(ImportError, OSError):  # Windows, or a file system that has none
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        file.write(line)


def _chooses_later(override: Override) -> bool:
    """Return whether Hydra may choose parts that no word names, by a pattern or a sweeper."""
    swept_by_pattern = override.value_type is ValueType.GLOB_CHOICE_SWEEP
    return swept_by_pattern or override.key_or_group.startswith(("hydra.sweeper", "hydra/sweeper"))


def _folder_of(output: Any) -> Path:
    """Return a sweep's folder: a new one, or one with jobs of a sweep."""
    folder = Path(str(output)) if output else Path("multirun", time.strftime("%Y-%m-%d/%H-%M-%S"))
    folder = folder.absolute()
    if folder.exists() and not (folder.is_dir() and all(_is_sweeps(p) for p in folder.iterdir())):
        raise MetalossError(f"output={folder}: exists and is not empty; give a new folder")
    # Every job appends its status again, finished ones too.
    (folder / _LEDGER).unlink(missing_ok=True)
    return folder


def _is_sweeps(path: Path) -> bool:
    own = path.name in (_LEDGER, "multirun.yaml", "optimization_results.yaml")
    return own or path.name.startswith(".") or (path.name.isdecimal() and path.is_dir())


def _statuses(folder: Path) -> Iterator[int]:
    ledger = folder / _LEDGER
    if ledger.exists():
        for line in ledger.read_text().splitlines():
            yield json.loads(line)["status"]


def _objective(summary: Mapping[str, Any]) -> float:
    sign = -1.0 if summary.get("goal") == "max" else 1.0
    for name, value in summary.get("metrics", {}).items():
        if name.startswith("valid/"):
            return sign * float(value)
    return math.nan
