"""The runs of a group, from their folders to their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metaloss import registry
from metaloss.config import RunConfig
from metaloss.contracts import RunFinished
from metaloss.core.parts.setup import Setup
from metaloss.core.runs.group import StackedAdvance, train_together
from metaloss.core.runs.opening import MADE_OF, open_folder, open_trackers, reopen_folder, started
from metaloss.core.runs.plain import plain_seconds
from metaloss.core.runs.results import Run, write_results
from metaloss.core.storage.files import read_json
from metaloss.core.training.interrupt import Interrupt
from metaloss.core.training.made_of import made_of
from metaloss.core.training.recorder import Recorder
from metaloss.core.training.trainer import Trainer
from metaloss.inner.stacked import stack
from metaloss.tracking.fanout import Fanout


@dataclass(frozen=True, kw_only=True)
class Member:
    """One run of a group, and where it goes on from.

    Attributes:
        made: What it is made of.
        content: A checkpoint's; None if it begins.
        messages: What is to be said of it.
        plugins: SHA-256 by file name, of a run that was begun before; None for a new one.
    """

    setup: Setup
    folder: Path
    fanout: Fanout
    made: Mapping[str, Any]
    content: dict[str, Any] | None = None
    messages: Sequence[str] = ()
    plugins: Mapping[str, str] | None = None


def begun(
    setups: Sequence[Setup],
    folders: Sequence[Path],
    plugins: Mapping[str, str] | None,
    trackers: Sequence[Fanout] | None = None,
    of: Path | None = None,
) -> list[Member]:
    """Write what new members' folders begin with. ``of``: a member of the same group."""
    config = setups[0].config
    group = read_json(of / MADE_OF)["group"] if of else [config.seed, len(setups)]
    trackers = trackers or trackers_of(config, len(setups))
    members = []
    for setup, folder, fanout in zip(setups, folders, trackers, strict=True):
        made = {**made_of(setup), "group": group}
        setup = open_folder(setup, folder, plugins, made)
        members.append(Member(setup=setup, folder=folder, fanout=fanout, made=made))
    return members


def trackers_of(config: RunConfig, count: int) -> list[Fanout]:
    """Return every member's trackers: those that people watch listen to the first member alone."""
    watched = {name for name in config.tracker if _once(name)}
    rest = {name: options for name, options in config.tracker.items() if name not in watched}
    others = replace(config, tracker=rest)
    return [open_trackers(config), *(open_trackers(others) for _ in range(count - 1))]


def _once(tracker: str) -> bool:
    return bool(getattr(registry.get("tracker", tracker).cls, "once", False))


def go(members: Sequence[Member]) -> list[Run]:
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
            recorder = Recorder(one.folder, one.fanout.handle, one.content)
            open_things.callback(recorder.close)
            if one.plugins is not None:
                reopen_folder(one.setup, one.folder, one.plugins)
            trainers.append(Trainer(one.setup, one.folder, recorder, interrupt, one.made))
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


def _announce(one: Member, trainer: Trainer, recorder: Recorder) -> None:
    if one.content is not None:
        trainer.restore(one.content)
    resumed_from = trainer.step if one.content else None
    group = one.folder.parent.name
    one.fanout.handle(started(one.setup, one.folder, resumed_from, group))
    for message in one.messages:
        recorder.warn((trainer.step, *trainer.place), message)


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


def _end(one: Member, trainer: Trainer, seconds: float, plain: float | None) -> Run:
    trainer.end()
    run, files = write_results(trainer, one.folder, seconds, plain)
    one.fanout.handle(RunFinished(summary=run.summary, files=files))
    return run
