"""Many seeds of one configuration at once: each with its own folder, journal and result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from metaloss import registry
from metaloss.compose import compose, to_overrides
from metaloss.config import RunConfig
from metaloss.contracts import RunFinished, Task
from metaloss.core import checkpoint
from metaloss.core.compile_choice import without_compiler
from metaloss.core.group import StackedAdvance, check_stackable, train_together
from metaloss.core.interrupt import Interrupt
from metaloss.core.opening import (
    check_empty,
    default_folder,
    open_folder,
    open_trackers,
    started,
)
from metaloss.core.plain import plain_seconds
from metaloss.core.processes import refuse_several
from metaloss.core.recorder import Recorder
from metaloss.core.results import Run, write_results
from metaloss.core.run import with_custom
from metaloss.core.setup import Setup, prepare
from metaloss.core.trainer import Trainer
from metaloss.errors import MetalossError
from metaloss.inner.stacked import stack
from metaloss.losses.base import LearnedLoss
from metaloss.tracking.fanout import Fanout


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
    setups = [
        prepare(replace(config, seed=seed), task=task, model=model, loss=loss) for seed in seeds
    ]
    check_stackable(setups)
    group = Path(config.output or f"{default_folder(setups[0])}-and-{config.seeds - 1}-more")
    folders = [group / f"seed{seed}" for seed in seeds]
    for folder in folders:
        check_empty(folder)
    trackers = _trackers(config, len(setups))
    members = []
    for setup, folder, fanout in zip(setups, folders, trackers, strict=True):
        setup = open_folder(setup, folder, plugins)
        members.append(_Member(setup=setup, folder=folder, fanout=fanout))
    return _go(members)


def resume_group(folder: Path) -> list[Run]:
    """Go on with the unfinished runs of a group, from the last place that all of them saved.

    Raises:
        MetalossError: If nothing is unfinished, or there is no place to go on from.
    """
    refuse_several(f"--resume {folder}", "go on with its seeds one at a time, or in one process")
    found = [path for path in sorted(folder.glob("seed*")) if (path / "config.yaml").is_file()]
    paths = [path for path in found if not (path / "summary.json").is_file()]
    if not paths:
        raise MetalossError(f"--resume {folder}: all {len(found)} runs in it are finished")
    configs = [
        without_compiler(replace(compose([], path / "config.yaml"), output=str(path)))
        for path in paths
    ]
    setups = [prepare(config) for config in configs]
    check_stackable(setups)
    devices = [setup.device for setup in setups]
    newest = [
        checkpoint.load_newest(path / "checkpoints", device)[0]
        for path, device in zip(paths, devices, strict=True)
    ]
    if any(content is None for content in newest):
        raise MetalossError(
            f"--resume {folder}: not every run in it has a checkpoint; go on with one at a time"
        )
    place = min(_place(content) for content in newest if content is not None)
    members = []
    trackers = _trackers(configs[0], len(paths))
    for setup, path, fanout in zip(setups, paths, trackers, strict=True):
        content, messages = checkpoint.load_newest(
            path / "checkpoints", setup.device, setup.start_total + place
        )
        if content is None or _place(content) != place:
            raise MetalossError(
                f"--resume {folder}: {path.name} has no checkpoint after {place} steps, where the "
                "others stand; go on with one at a time"
            )
        members.append(
            _Member(setup=setup, folder=path, fanout=fanout, content=content, messages=messages)
        )
    return _go(members)


@dataclass(frozen=True, kw_only=True)
class _Member:
    """One run of a group, and where it goes on from."""

    setup: Setup
    folder: Path
    fanout: Fanout
    content: dict[str, Any] | None = None
    messages: Sequence[str] = ()


def _trackers(config: RunConfig, count: int) -> list[Fanout]:
    """Return every member's trackers: those that people watch listen to the first member alone."""
    watched = {name for name in config.tracker if _once(name)}
    rest = {name: options for name, options in config.tracker.items() if name not in watched}
    others = replace(config, tracker=rest)
    return [open_trackers(config), *(open_trackers(others) for _ in range(count - 1))]


def _place(content: Mapping[str, Any]) -> int:
    """Return how many steps were done when a checkpoint was written."""
    offline, train = content["progress"]
    return int(offline + train)


def _once(tracker: str) -> bool:
    return bool(getattr(registry.get("tracker", tracker).cls, "once", False))


def _go(members: Sequence[_Member]) -> list[Run]:
    """Train the members to their ends, and write what remains of each."""
    first = members[0]
    with (
        first.setup.numerics(),
        Interrupt() as interrupt,
        ExitStack() as open_things,
    ):
        trainers, recorders = [], []
        for one in members:
            open_things.callback(one.fanout.close)
            keep = one.content or {"files": None, "seconds": 0.0}
            recorder = Recorder(one.folder, one.fanout.handle, keep["files"], keep["seconds"])
            open_things.callback(recorder.close)
            trainers.append(Trainer(one.setup, one.folder, recorder, interrupt))
            recorders.append(recorder)
        for one, trainer, recorder in zip(members, trainers, recorders, strict=True):
            _announce(one, trainer, recorder)
        if first.content is None:
            _begin(trainers)
        if any(trainer.next_plan() for trainer in trainers):
            trainers[0].say_compiling("the steps of all seeds")
        train_together(trainers, lambda: interrupt.asked)
        if interrupt.asked:
            for trainer in trainers:
                trainer.save()
            folder = first.folder.parent
            interrupt.check(
                f"checkpoints were written; go on with metaloss train --resume {folder}"
            )
        # A member's share of the time that all took together.
        seconds = [recorder.seconds() / len(members) for recorder in recorders]
        plain = _plain_seconds(trainers)
        return [
            _end(one, trainer, share, plain)
            for one, trainer, share in zip(members, trainers, seconds, strict=True)
        ]


def _announce(one: _Member, trainer: Trainer, recorder: Recorder) -> None:
    if one.content is not None:
        trainer.restore(one.content)
    resumed_from = trainer.step if one.content else None
    group = one.folder.parent.name
    one.fanout.handle(started(one.setup, one.folder, resumed_from, group))
    for message in one.messages:
        recorder.notice(trainer.step, message)


def _begin(trainers: Sequence[Trainer]) -> None:
    """Start every member's φ, all in one program where the start can."""
    setups = [trainer.setup for trainer in trainers]
    first = setups[0]
    phis = first.start.begin_together(
        [setup.loss for setup in setups],
        first.task.task_loss,
        first.task.outputs,
        [setup.config.seed for setup in setups],
        [trainer.report for trainer in trainers],
    )
    for trainer, phi in zip(trainers, phis, strict=True):
        trainer.begin(phi)


def _plain_seconds(trainers: Sequence[Trainer]) -> float | None:
    """Return a member's share of what a plain step of all together takes, None if unknown."""
    setup = trainers[0].setup
    if not setup.schedule.learns or not all(trainer.progress.train for trainer in trainers):
        return None
    # A program of its own: members may have ended on the way.
    trainers[0].say_compiling("a plain step, to tell what the moving loss costs")
    advance = StackedAdvance([trainer.setup.advance for trainer in trainers])
    # A member that moves its loss on the next batch may have ended without one that waits.
    states = stack([trainer.state._replace(pending=None) for trainer in trainers])
    return plain_seconds(advance, states) / len(trainers)


def _end(one: _Member, trainer: Trainer, seconds: float, plain: float | None) -> Run:
    trainer.end()
    run, files = write_results(trainer, one.folder, seconds, plain)
    one.fanout.handle(RunFinished(summary=run.summary, files=files))
    return run
