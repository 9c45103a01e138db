"""Trains the runs of a group, or a single run, and writes their results."""

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
from metaloss.core.runs.opening import (
    open_folder,
    open_recorder,
    open_trackers,
    reopen_folder,
    started,
)
from metaloss.core.runs.results import Run, write_results
from metaloss.core.search import loop as search
from metaloss.core.training import loop
from metaloss.core.training.interrupt import Interrupt
from metaloss.core.training.recorder import Recorder
from metaloss.core.training.trainer import Trainer
from metaloss.inner.processes.ranks import Ranks
from metaloss.tracking.fanout import Fanout


@dataclass(frozen=True, kw_only=True)
class Before:
    """The place from which a run is resumed.

    Attributes:
        content: The content of a checkpoint; None if training has not begun.
        saved: The content of a checkpoint of the search; None without one.
        messages: Messages for the user.
    """

    content: Mapping[str, Any] | None = None
    saved: Mapping[str, Any] | None = None
    messages: Sequence[str] = ()

    def place(self, setup: Setup) -> tuple[int, str, int] | None:
        """Return the step to resume from, its phase and the step in it; None for a new run."""
        if self.content is None:
            done = None if self.saved is None else len(self.saved["told"])
            return None if done is None else (done, "offline", done)
        offline, train = self.content["progress"]
        trains = train or not setup.schedule.offline_total()
        phase, step = ("train", train) if trains else ("offline", offline)
        return setup.start_total + offline + train, phase, step


@dataclass(frozen=True, kw_only=True)
class Member:
    """A run of a group, or a single one.

    Attributes:
        made: The result of `made_of`.
        before: The place to resume from.
        new: Whether its folder must be written.
        said: A line on what its budget has bought; None without a budget.
    """

    setup: Setup
    folder: Path
    fanout: Fanout
    made: Mapping[str, Any]
    before: Before = Before()
    new: bool = False
    said: str | None = None


def trackers_of(config: RunConfig, count: int, ranks: Ranks) -> list[Fanout]:
    """Return the trackers of each run. Interactive trackers get only the first run."""
    classes = {name: registry.get("tracker", name).cls for name in config.tracker}
    watched = {name for name, cls in classes.items() if getattr(cls, "once", False)}
    others = {name: options for name, options in config.tracker.items() if name not in watched}
    configs = [config] + [replace(config, tracker=others)] * (count - 1)
    return [open_trackers(one, ranks) for one in configs]


def go(
    members: Sequence[Member],
    interrupt: Interrupt,
    plugins: Mapping[str, str] | None,
    group: Path | None,
) -> list[Run]:
    """Train the members, which are at the same step, to the end, and write their results.

    ``plugins``: SHA-256 by file name. ``group``: the folder of a group; None for a single run.
    """
    first = members[0]
    with first.setup.numerics(), ExitStack() as trackers:
        for one in members:
            trackers.callback(one.fanout.close)
        with ExitStack() as journals:
            trainers = []
            for one in members:
                setup, recorder = _opened(one, plugins)
                journals.callback(recorder.close)
                _announce(one, setup, recorder, group)
                if setup.search is not None:
                    setup = search.find_loss(setup, recorder, interrupt, one.before.saved)
                trainers.append(Trainer(setup, one.folder, recorder, interrupt, one.made))
            _begin(members, trainers)
            loop.train(trainers, interrupt, group or first.folder)
        runs = []
        for one, trainer in zip(members, trainers, strict=True):
            # The member's share of the total time.
            seconds = trainer.recorder.seconds() / len(members)
            run, files = write_results(trainer, one.folder, seconds)
            one.fanout.handle(RunFinished(summary=run.summary.as_dict(), files=files))
            runs.append(run)
    return runs


def _opened(one: Member, plugins: Mapping[str, str] | None) -> tuple[Setup, Recorder]:
    """Write the first files of a member's folder, or update them; open its journal."""
    if one.new:
        setup = open_folder(one.setup, one.folder, plugins, one.made)
        return setup, open_recorder(setup, one.folder, one.fanout)
    # Raises if the journal does not fit the checkpoint, before anything is overwritten.
    keep = one.before.content or one.before.saved
    recorder = open_recorder(one.setup, one.folder, one.fanout, keep)
    try:
        reopen_folder(one.setup, one.folder, plugins)
    except BaseException:
        recorder.close()
        raise
    return one.setup, recorder


def _announce(one: Member, setup: Setup, recorder: Recorder, group: Path | None) -> None:
    place = one.before.place(setup)
    name = None if group is None else group.name
    one.fanout.handle(started(setup, one.folder, place and place[0], name))
    if one.said is not None:
        recorder.notice(0, one.said, level="info")
    for message in one.before.messages:
        recorder.warn(place or (0, "start", 0), message)


def _begin(members: Sequence[Member], trainers: Sequence[Trainer]) -> None:
    """Restore or start every trainer. If possible, φ starts in one program for all."""
    if members[0].before.content is not None:
        for one, trainer in zip(members, trainers, strict=True):
            assert one.before.content is not None, "members stand at the same place"
            trainer.restore(one.before.content)
        return
    if len(trainers) == 1:
        trainers[0].begin()
        return
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
