"""A run from its config to its folder: what ``metaloss train`` and ``metaloss.train`` do."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from metaloss.compose import compose, to_overrides
from metaloss.config import Compile, RunConfig
from metaloss.contracts import RunFinished, Task
from metaloss.core.compilation.policy import without_compiler
from metaloss.core.distributed.launch import joined
from metaloss.core.parts.blame import told
from metaloss.core.parts.custom import in_place_of_custom, with_custom
from metaloss.core.parts.setup import Setup, prepare
from metaloss.core.runs.opening import (
    CONFIG,
    MADE_OF,
    changed_plugins,
    check_empty,
    claimed,
    default_folder,
    open_folder,
    open_recorder,
    open_trackers,
    reopen_folder,
    started,
)
from metaloss.core.runs.plain import plain_seconds
from metaloss.core.runs.process_checks import check_processes
from metaloss.core.runs.results import Run, write_results
from metaloss.core.search import loop as search
from metaloss.core.storage import checkpoint
from metaloss.core.storage.files import read_json
from metaloss.core.storage.run_folder import read_rows
from metaloss.core.training.interrupt import Interrupt
from metaloss.core.training.made_of import compare, made_of, restore_fixed
from metaloss.core.training.recorder import Recorder
from metaloss.core.training.trainer import Trainer
from metaloss.errors import MetalossError
from metaloss.losses.base import LearnedLoss
from metaloss.tracking.fanout import Fanout


def train(
    config: Mapping[str, Any] | Sequence[str] = (),
    *,
    task: Task | None = None,
    model: nn.Module | None = None,
    loss: LearnedLoss | None = None,
) -> Run:
    """Train a model while learning its loss: what ``metaloss train`` does.

    Args:
        config: The command line's words (``["schedule=online", "inner.lr=0.1"]``) or a mapping of
            the same keys (``{"schedule": "online", "inner.lr": 0.1}``).
        task: Your own data, from :func:`metaloss.task_from_data`, instead of a registered task.
        model: Your own module; training begins with its current weights. It is not changed:
            the trained one is in the result.
        loss: Your own loss instead of a registered one. It is not changed either.

    Raises:
        MetalossError: If the request cannot be met; nothing was written by then.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> words = ["steps=5", "start.steps=5", "tracker=[]", f"output={folder}"]
        >>> run = train(words)
        >>> run.summary["status"], sorted(run.summary["metrics"])
        ('ok', ['test/error', 'valid/error'])
    """
    words = to_overrides(config) if isinstance(config, Mapping) else list(config)
    return train_run(compose(words), task=task, model=model, loss=loss)


def train_run(
    config: RunConfig,
    *,
    task: Task | None = None,
    model: nn.Module | None = None,
    loss: LearnedLoss | None = None,
    plugins: Mapping[str, str] | None = None,
) -> Run:
    """Do one run from its start; see :func:`train`. ``plugins``: SHA-256 by file name."""
    if config.seeds > 1:
        raise MetalossError(
            f"seeds={config.seeds} is many runs: use metaloss.train_seeds(...), which returns them"
        )
    config = with_custom(config, task, model, loss)
    with joined(config.device) as ranks, told():
        if ranks.leads and config.output:
            check_empty(Path(config.output))  # before the rows are read
        setup = prepare(config, task=task, model=model, loss=loss, ranks=ranks)
        search.check_search(setup)
        folder = Path(config.output or default_folder(setup))
        fanout = open_trackers(setup.config, ranks)
        check_processes(setup)
        folder = ranks.same(folder)
        with claimed(folder, ranks), Interrupt(ranks.any) as interrupt:
            made = made_of(setup)
            setup = open_folder(setup, folder, plugins, made)
            return _go(setup, fanout, open_recorder(setup, folder, fanout), interrupt, made)


def resume_run(
    folder: str | Path,
    *,
    steps: int | None = None,
    tracker: Mapping[str, Any] | None = None,
    device: str | None = None,
    plugins: Mapping[str, str] | None = None,
    task: Task | None = None,
    model: nn.Module | None = None,
    loss: LearnedLoss | None = None,
) -> Run:
    """Go on with a run from its newest checkpoint; it ends as if it had never stopped.

    Args:
        folder: The run's folder.
        steps: Another number of training steps.
        tracker: Other trackers, their options by name.
        device: Another device.
        plugins: SHA-256 by file name, for the summary.
        task: The user's own objects, where the run was made with them (also model and loss).
        model: As above.
        loss: As above.

    Raises:
        MetalossError: If the folder holds no run, or if it is finished already.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise MetalossError(f"--resume {folder}: there is no run in it (no config.yaml)")
    words = in_place_of_custom(folder, task, model, loss)
    config = compose(words, config_file=folder / CONFIG)
    config = without_compiler(replace(config, output=str(folder)))
    finished = _finished_steps(folder)
    if finished is not None and (steps is None or steps <= finished):
        raise MetalossError(
            f"--resume {folder}: the run is finished, with {finished} steps; to go on, ask for "
            f"more: steps={2 * max(finished, 1)}"
        )
    if steps is not None:
        config = replace(config, steps=steps)
    if tracker is not None:
        config = replace(config, tracker=dict(tracker))
    if device is not None:
        config = replace(config, device=device)
    config = with_custom(config, task, model, loss)
    with joined(config.device) as ranks, told():
        if ranks.size > 1:
            # One process may have chosen to compile.
            config = replace(config, compile=Compile.auto)
        # Its frozen weights may have to be replaced.
        model = copy.deepcopy(model)
        setup = prepare(config, task=task, model=model, loss=loss, ranks=ranks)
        search.check_search(setup)
        fanout = open_trackers(config, ranks)
        content, messages = checkpoint.load_newest(folder / "checkpoints", setup.device)
        saved, more = search.load(folder, setup.device) if setup.search else (None, [])
        messages = [*messages, *more]
        if content is None and saved is None and not messages:
            check_nothing_is_lost(folder)
        with Interrupt(ranks.any) as interrupt:
            made, more = as_it_was(setup, folder, content)
            messages = [*changed_plugins(folder, plugins), *messages, *more]
            # All processes have read the folder when this returns: process 0 may write in it.
            check_processes(setup, _place(setup, content, saved))
            # Refuses a journal that does not fit the checkpoint: before anything is overwritten.
            recorder = open_recorder(setup, folder, fanout, content or saved)
            try:
                reopen_folder(setup, folder, plugins)
            except BaseException:
                recorder.close()
                raise
            before = Before(content, saved, messages)
            return _go(setup, fanout, recorder, interrupt, made, before)


@dataclass(frozen=True)
class Before:
    """Where a run goes on from.

    Attributes:
        content: A checkpoint's; None if training has not begun.
        saved: A checkpoint's of the search before training, where there is one.
        messages: What is to be said of it.
    """

    content: dict[str, Any] | None = None
    saved: dict[str, Any] | None = None
    messages: Sequence[str] = ()


def as_it_was(
    setup: Setup, folder: Path, content: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], list[str]]:
    """Give a run that goes on its frozen weights; return what it is made of, and messages.

    Raises:
        MetalossError: If its rows, model or loss are not those that it was made with.
    """
    expected = (content or {}).get("made_of") or read_json(folder / MADE_OF)
    messages = compare(str(folder), setup, expected, content)
    if content is not None and "fixed" in content:
        restore_fixed(setup, content["fixed"])
    return expected or made_of(setup), messages


def _place(
    setup: Setup, content: Mapping[str, Any] | None, saved: Mapping[str, Any] | None
) -> int | None:
    """Return the step that a run goes on from, None if it begins."""
    if content is not None:
        return int(setup.start_total + sum(content["progress"]))
    return None if saved is None else len(saved["told"])


def _named_place(setup: Setup, before: Before) -> tuple[int, str, int]:
    """Return the step that a run goes on from, its phase and the step in it."""
    place = _place(setup, before.content, before.saved) or 0
    if before.content is None:
        return (place, "start", 0) if before.saved is None else (place, "offline", place)
    offline, train = before.content["progress"]
    return (place, "train", train) if train else (place, "offline", offline)


def check_nothing_is_lost(folder: Path) -> None:
    """Raise if a run that had got further than its start has no checkpoint to go on from."""
    journal = folder / "journal.jsonl"
    rows = read_rows(journal) if journal.exists() else []
    # The numbers of step 0 are written just before the first checkpoint.
    if any(row["phase"] != "start" and row["phase_step"] > 0 for row in rows):
        raise MetalossError(
            f"--resume {folder}: its journal goes to step {rows[-1]['step']}, but there is no "
            "checkpoint to go on from; start a new run with --config "
            f"{folder / 'config.yaml'} output=ANOTHER"
        )


def _go(
    setup: Setup,
    fanout: Fanout,
    recorder: Recorder,
    interrupt: Interrupt,
    made: Mapping[str, Any],
    before: Before = Before(),
) -> Run:
    """Run, or go on from where a run was, and write what remains."""
    folder = recorder.folder
    try:
        with setup.numerics():
            try:
                place = _place(setup, before.content, before.saved)
                fanout.handle(started(setup, folder, place))
                for message in before.messages:
                    recorder.warn(_named_place(setup, before), message)
                if setup.search is not None:
                    setup = search.find_loss(setup, recorder, interrupt, before.saved)
                trainer = Trainer(setup, folder, recorder, interrupt, made)
                if before.content is None:
                    trainer.begin()
                else:
                    trainer.restore(before.content)
                trainer.run()
            finally:
                recorder.close()
            # Before the plain step is timed, which is no part of the run.
            seconds = recorder.seconds()
            learns = setup.schedule.learns and trainer.progress.train > 0
            if learns:
                trainer.say_timing()
            plain = plain_seconds(setup.advance, trainer.state) if learns else None
            run, files = write_results(trainer, folder, seconds, plain)
            fanout.handle(RunFinished(summary=run.summary, files=files))
    finally:
        fanout.close()
    return run


def _finished_steps(folder: Path) -> int | None:
    summary = read_json(folder / "summary.json")
    return summary.get("steps")
