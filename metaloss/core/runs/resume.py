"""Resumes runs: which runs of a folder, from which step, and whether their parts have changed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from metaloss.compose import compose
from metaloss.config import Compile, RunConfig
from metaloss.contracts import Task
from metaloss.core.compilation.policy import without_compiler
from metaloss.core.distributed.launch import joined, refuse_several
from metaloss.core.parts.blame import told
from metaloss.core.parts.custom import in_place_of_custom, with_custom
from metaloss.core.parts.setup import Setup, prepare
from metaloss.core.runs.members import Before, Member, go, trackers_of
from metaloss.core.runs.opening import changed_plugins
from metaloss.core.runs.process_checks import check_processes
from metaloss.core.runs.results import Run
from metaloss.core.runs.stackable import check_together
from metaloss.core.search import loop as search
from metaloss.core.storage import checkpoint
from metaloss.core.storage.files import read_json
from metaloss.core.storage.run_folder import (
    CHECKPOINTS,
    CONFIG,
    JOURNAL,
    MADE_OF,
    is_group,
    members_of,
    read_rows,
    read_summary,
    steps_of_finished,
)
from metaloss.core.training.interrupt import Interrupt
from metaloss.core.training.made_of import compare, made_of, restore_fixed
from metaloss.errors import MetalossError
from metaloss.losses.base import LearnedLoss


def resume_runs(
    folder: str | Path,
    changes: Mapping[str, Any],
    *,
    plugins: Mapping[str, str] | None = None,
    task: Task | None = None,
    model: nn.Module | None = None,
    loss: LearnedLoss | None = None,
) -> list[Run]:
    """Resume a run, or the unfinished runs of a group; see :func:`metaloss.resume_run`.

    ``changes`` has new values of ``steps``, ``tracker`` or ``device``; None: unchanged.
    """
    folder, many = Path(folder), is_group(Path(folder))
    changes = {name: value for name, value in changes.items() if value is not None}
    if many:
        refuse_several(f"--resume {folder}", "resume one of its seeds, or use one process")
    found = members_of(folder)
    if not found:
        raise MetalossError(f"--resume {folder}: there is no run in it (no config.yaml)")
    missing = _missing(folder, found)
    own = {"task": task, "model": model, "loss": loss}
    configs = {path: config_in(path / CONFIG, path, own) for path in found}
    for path in _finished(folder, found, changes.get("steps"), missing):
        del configs[path]
    for path, seed in missing.items():
        configs[path] = replace(config_in(found[0] / CONFIG, path, own), seed=seed)
    configs = {path: replace(config, **changes) for path, config in configs.items()}
    first = next(iter(configs.values()))
    with joined(first.device) as ranks, told():
        if ranks.size > 1:
            # A single process may have decided to compile.
            configs = {path: replace(one, compile=Compile.auto) for path, one in configs.items()}
        setups = [
            # The frozen weights of the model may be replaced.
            prepare(one, task=task, model=copy.deepcopy(model), loss=loss, ranks=ranks)
            for one in configs.values()
        ]
        check_together(setups)
        fanouts = trackers_of(first, len(setups), ranks)
        befores = _befores(folder, dict(zip(configs, setups, strict=True)))
        with Interrupt(ranks.any) as interrupt:
            members = []
            for path, setup, fanout in zip(configs, setups, fanouts, strict=True):
                one = Member(setup=setup, folder=path, fanout=fanout, made={}, new=path in missing)
                if one.new:
                    made = {**made_of(setup), "group": _group(found)}
                    members.append(replace(one, made=made))
                    continue
                before = befores[path]
                known, more = _as_it_was(setup, path, before.content)
                messages = [*changed_plugins(path, plugins), *before.messages, *more]
                before = replace(before, messages=messages)
                members.append(replace(one, made=known, before=before))
            begun = members[0].before.place(setups[0])
            # After this all processes have read the folder, so that process 0 may write in it.
            check_processes(setups[0], begun and begun[0])
            return go(members, interrupt, plugins, folder if many else None)


def config_in(file: Path, folder: Path, own: Mapping[str, Any]) -> RunConfig:
    """Return the config in a file, with ``folder`` as its output and the user's objects."""
    words = in_place_of_custom(file, **own)
    config = without_compiler(compose(words, file))
    return replace(with_custom(config, **own), output=str(folder))


def _finished(
    folder: Path, found: Sequence[Path], steps: int | None, missing: Mapping[Path, int]
) -> list[Path]:
    """Return the finished runs, unless there are more steps now, and those that have diverged.

    Raises:
        MetalossError: If all runs are finished, or have diverged.
    """
    gone = [path for path in found if (read_summary(path) or {}).get("status") == "diverged"]
    if len(gone) == len(found) and not missing:
        which = "the run has" if found == [folder] else f"all {len(found)} runs in it have"
        raise MetalossError(
            f"--resume {folder}: {which} diverged: begin again with --config {found[0] / CONFIG} "
            "output=ANOTHER, and another rate, for example"
        )
    done = {path: steps_of_finished(path) for path in found}
    done = {
        path: n
        for path, n in done.items()
        if n is not None and (steps is None or steps <= n or path in gone)
    }
    if len(done) == len(found) and not missing:
        most = max(number for number in done.values() if number is not None)
        which = "the run is" if found == [folder] else f"all {len(found)} runs in it are"
        raise MetalossError(
            f"--resume {folder}: {which} finished, with {most} steps; to continue, use more steps: "
            f"steps={2 * max(most, 1)}"
        )
    return list(done)


def _group(found: Sequence[Path]) -> Any:
    """Return the first seed of a group and the number of seeds; None for a single run."""
    return read_json(found[0] / MADE_OF).get("group")


def _missing(folder: Path, found: Sequence[Path]) -> dict[Path, int]:
    """Return the runs that a killed group has not begun, with their seeds."""
    group = None if found == [folder] else _group(found)
    if group is None:
        return {}
    paths = {folder / f"seed{seed}": seed for seed in range(group[0], sum(group))}
    return {path: seed for path, seed in paths.items() if path not in found}


def _befores(folder: Path, setups: Mapping[Path, Setup]) -> dict[Path, Before]:
    """Return the place from which each run is resumed: the same for all that have not ended early.

    Raises:
        MetalossError: If there is no step with a checkpoint of every run.
    """
    newest = {path: _newest(path, setup) for path, setup in setups.items()}
    places = [_steps_done(one.content) for one in newest.values()]
    begins = None in places
    if begins and any(places):
        raise MetalossError(
            f"--resume {folder}: not every run in it has a checkpoint; resume one at a time"
        )
    if begins:
        return {path: replace(one, content=None) for path, one in newest.items()}
    ended = {path for path, one in newest.items() if _ended_early(one.content, setups[path])}
    going = [place for path, place in zip(newest, places, strict=True) if path not in ended]
    place = min((place for place in going if place is not None), default=0)
    return {
        path: one if path in ended else _upto(place, path, setups[path], one)
        for path, one in newest.items()
    }


def _newest(path: Path, setup: Setup) -> Before:
    """Return a run's newest checkpoint, and that of its search.

    Raises:
        MetalossError: If training has begun, but there is no checkpoint.
    """
    content, messages = checkpoint.load_newest(path / CHECKPOINTS, setup.device)
    saved, more = search.load(path, setup.device) if setup.search else (None, [])
    messages = [*messages, *more]
    rows = [] if content or saved or messages else read_rows(path / JOURNAL)
    # The numbers of step 0 are written just before the first checkpoint.
    if any(row["phase"] != "start" and row["phase_step"] > 0 for row in rows):
        raise MetalossError(
            f"--resume {path}: its journal goes to step {rows[-1]['step']}, but there is no "
            f"checkpoint; start a new run with --config {path / CONFIG} "
            "output=ANOTHER"
        )
    return Before(content=content, saved=saved, messages=messages)


def _upto(place: int, path: Path, setup: Setup, newest: Before) -> Before:
    """Return a run's checkpoint after ``place`` steps."""
    if _steps_done(newest.content) == place:
        return newest
    content, messages = checkpoint.load_newest(
        path / CHECKPOINTS, setup.device, setup.start_total + place
    )
    if _steps_done(content) != place:
        raise MetalossError(
            f"--resume {path.parent}: {path.name} has no checkpoint after {place} steps, where the "
            "others stand; go on with one at a time"
        )
    return Before(content=content, messages=messages)


def _ended_early(content: Mapping[str, Any] | None, setup: Setup) -> bool:
    """Return whether a run was given up or stopped early before its checkpoint was written."""
    assert content is not None
    patience = setup.schedule.early_stopping
    return bool(content["ladder"]["diverged"]) or 0 < patience <= content["best"][2]


def _steps_done(content: Mapping[str, Any] | None) -> int | None:
    """Return the number of steps before a checkpoint."""
    return None if content is None else int(sum(content["progress"]))


def _as_it_was(
    setup: Setup, folder: Path, content: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], list[str]]:
    """Restore the frozen weights of a resumed run; return the result of `made_of`, and messages.

    Raises:
        MetalossError: If its rows, model or loss have changed.
    """
    expected = (content or {}).get("made_of") or read_json(folder / MADE_OF)
    messages = compare(str(folder), setup, expected, content)
    if content is not None and "fixed" in content:
        restore_fixed(setup, content["fixed"])
    return expected or made_of(setup), messages
