"""Runs in processes of their own, some at a time; what is finished stays finished."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from metaloss.compose import to_overrides
from metaloss.core.execution.executor import Executor, LostError, StoppedError, require_folder
from metaloss.core.storage.run_folder import is_busy, read_summary
from metaloss.core.training.interrupt import endings_as_ctrl_c
from metaloss.errors import MetalossError
from metaloss.study.launch.jobs import Job, State, can_resume, clear

# How long what an earlier call left may take to write its checkpoint.
_PATIENCE_SECONDS = 30.0
_FINISHED, _REFUSED, _DIVERGED = 0, 2, 3


class RefusedError(MetalossError):
    """A run was not begun: what was asked for cannot be met."""


class Train(Protocol):
    """Trains one run to its end, in ``folder``."""

    def __call__(self, overrides: list[str], folder: Path, *, resume: bool) -> str:
        """Return ``"ok"`` or ``"diverged"``.

        Args:
            overrides: ``KEY=VALUE`` words, without ``output``; with ``seeds=N`` N runs are trained
                together, in ``folder/seed<k>``.
            folder: Where to; missing or empty unless ``resume``.
            resume: Go on with the unfinished run in ``folder``.

        Raises:
            RefusedError: If nothing was begun, since it cannot be done.
            MetalossError: If there is no finished run in the end.
        """


class ProcessTrainer:
    """Trains by the command line, ``metaloss train``, in a process of its own: nothing is shared.

    Args:
        executor: Begins the processes; here or, by a plugin, on other machines, which must see the
            folders of the runs.
        arguments: Further words for the command line, such as ``--plugin FILE.py``.

    What a run prints goes to ``<folder>.log``, beside the folder. Use it in a ``with`` statement,
    which ends what is left.

    Attributes:
        room: How many runs the executor has room for at once.
    """

    def __init__(self, *, executor: Executor, arguments: Sequence[str] = ()) -> None:
        self._executor, self._arguments = executor, list(arguments)
        self.room = executor.room

    def __enter__(self) -> ProcessTrainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __call__(self, overrides: list[str], folder: Path, *, resume: bool) -> str:
        """Train; see `Train`."""
        folder = folder.absolute()
        words = (
            ["--resume", str(folder)] if resume else [*overrides, *to_overrides({"output": folder})]
        )
        log = _log_of(folder)
        log.parent.mkdir(parents=True, exist_ok=True)
        words = ["train", *words, *self._arguments]
        try:
            status = self._executor.submit(run_command, words, log).result()
        except StoppedError as error:
            raise MetalossError(f"{folder}: {error}") from error
        except LostError as error:
            last = f": {_last_line(log)} (see {log})" if log.is_file() else ""
            raise MetalossError(f"{folder}: {error}{last}") from error
        if status in (_FINISHED, _DIVERGED):
            return "ok" if status == _FINISHED else "diverged"
        kind = RefusedError if status == _REFUSED else MetalossError
        raise kind(f"{folder}: exit status {status}: {_last_line(log)} (see {log})")

    def stop(self) -> None:
        """End what runs, as Ctrl-C does: each writes a checkpoint. Start nothing more."""
        self._executor.stop()


def run_command(words: Sequence[str], log: Path) -> int:
    """Do what ``metaloss WORDS`` does, in this process; return its exit status.

    Args:
        words: The words of the command line.
        log: Where what is printed goes, after what is there.

    Raises:
        MetalossError: If this machine does not see the log's folder.
    """
    require_folder(log.parent)
    with log.open("ab") as output, _printing_to(output.fileno()):
        # By name: the command line lies above.
        return int(importlib.import_module("metaloss.cli.main").main(list(words)))


@contextmanager
def _printing_to(file: int) -> Iterator[None]:
    """Let all that this process prints, its libraries too, go to a file for a while."""
    _flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    try:
        for number in kept:
            os.dup2(file, number)
        yield
    finally:
        _flush()
        for number, before in kept.items():
            os.dup2(before, number)
            os.close(before)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a disk that is full, a reader that has left
            stream.flush()


class Watch(Protocol):
    """Is told what happens while runs are trained."""

    def started(self, job: Job) -> None:
        """A run has begun."""

    def ended(self, job: Job, message: str) -> None:
        """A run has ended; ``message`` says why if it failed."""

    def look(self) -> None:
        """Some time has passed."""


def train_missing(
    jobs: Sequence[Job], train: Train, *, workers: int, watch: Watch, together: int = 1
) -> None:
    """Train every job that is not finished, the costly ones first, ``workers`` at a time.

    Those of equal cost begin in the given order: the rows of a study's first block first.

    Up to ``together`` seeds of a row are one program, and one of the ``workers``; where its parts
    do not allow that they are trained one after the other. Ctrl-C (or another signal that asks a
    program to end) ends what runs and starts nothing more: the same call goes on later.

    Raises:
        MetalossError: If a run failed; the others were trained nevertheless.
        KeyboardInterrupt: After Ctrl-C.
    """
    units = programs([job for job in jobs if job.state is not State.finished], together)
    units.sort(key=lambda unit: -sum(job.cost for job in unit))  # stable: as given
    failures: list[str] = []
    with (
        endings_as_ctrl_c(),
        ThreadPoolExecutor(workers, thread_name_prefix="metaloss-run") as pool,
    ):
        futures = {pool.submit(_train_unit, unit, train, watch): unit for unit in units}
        try:
            for unit, messages in _as_they_end(futures, watch.look):
                for job, failure in zip(unit, messages, strict=True):
                    watch.ended(job, failure)
                failures += filter(None, messages)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop: Callable[[], None] | None = getattr(train, "stop", None)
            if stop is not None:
                stop()
            raise
    if failures:
        total = sum(len(unit) for unit in units)
        raise MetalossError(f"{len(failures)} of {total} runs failed; the first: {failures[0]}")


def programs(jobs: Sequence[Job], together: int) -> list[tuple[Job, ...]]:
    """Return the jobs that are trained in one program: not begun, of one row, seeds in sequence."""
    found: list[tuple[Job, ...]] = []
    for job in jobs:
        unit = found[-1] if found else ()
        follows = (
            0 < len(unit) < together
            and unit[-1].folder.parent == job.folder.parent
            and unit[-1].seed + 1 == job.seed
            and unit[-1].state is job.state is State.missing
        )
        if follows:
            found[-1] = (*unit, job)
        else:
            found.append((job,))
    return found


def _train_unit(unit: tuple[Job, ...], train: Train, watch: Watch) -> list[str]:
    """Return, for each job, why there is no finished run, or nothing."""
    for job in unit:
        watch.started(job)
    if len(unit) > 1:
        words = [*unit[0].overrides, f"seeds={len(unit)}"]
        try:
            train(words, unit[0].folder.parent, resume=False)
        except RefusedError:
            return [_train_one(job, train) for job in unit]
        except MetalossError as error:
            return [_ending(job) and str(error) for job in unit]
        return [_ending(job, unit[0].folder.parent) for job in unit]
    return [_train_one(unit[0], train)]


def _train_one(job: Job, train: Train) -> str:
    # What an earlier call began, and left when it was killed, is still writing its checkpoint.
    began = time.monotonic()
    while is_busy(job.folder):
        if time.monotonic() - began > _PATIENCE_SECONDS:
            return f"{job.folder} is being trained by another process: wait for it, or end it"
        time.sleep(0.2)
    if read_summary(job.folder) is not None:
        return ""
    resume = can_resume(job.folder)
    if not resume:
        clear(job.folder)
    try:
        train(list(job.overrides), job.folder, resume=resume)
    except MetalossError as error:
        return str(error)
    return _ending(job)


def _ending(job: Job, trained: Path | None = None) -> str:
    """Return why a run has no summary, or nothing. ``trained``: the folder of many together."""
    notes: list[str] = []
    if read_summary(job.folder, notes) is not None:
        return ""
    log = _log_of(trained or job.folder)
    return f"{notes[-1]}: {_last_line(log)} (see {log})" if log.is_file() else notes[-1]


def _log_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")


def _as_they_end(
    futures: dict[Future[list[str]], tuple[Job, ...]], look: Callable[[], None]
) -> Iterator[tuple[tuple[Job, ...], list[str]]]:
    waiting = set(futures)
    while waiting:
        # A short wait keeps the progress display alive and lets Ctrl-C through.
        done, waiting = wait(waiting, timeout=0.3, return_when=FIRST_COMPLETED)
        look()
        for future in sorted(done, key=lambda future: futures[future][0].folder):
            yield futures[future], future.result()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it printed nothing"
