"""Trains the runs of a study, several at a time, each in a process of its own."""

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

from metaloss.compose import shared_words, to_overrides
from metaloss.core.execution.executor import Executor, LostError, StoppedError, require_folder
from metaloss.core.storage.run_folder import FIRST, is_busy, read_summary
from metaloss.core.training.interrupt import endings_as_ctrl_c
from metaloss.errors import MetalossError
from metaloss.study.launch.jobs import (
    Job,
    State,
    can_resume,
    clear,
    was_stopped,
)

# Seconds for a process that an earlier call left behind to write its checkpoint.
_PATIENCE_SECONDS = 30.0
_FINISHED, _REFUSED, _DIVERGED = 0, 2, 3


class RefusedError(MetalossError):
    """The parts of a run do not support what it asks for; nothing was trained."""


class Train(Protocol):
    """Trains one run to its end in ``folder``."""

    def __call__(self, overrides: list[str], folder: Path, *, resume: bool) -> str:
        """Return ``"ok"`` or ``"diverged"``.

        Args:
            overrides: ``KEY=VALUE`` words, without ``output``. With ``seeds=N``, N runs are trained
                together, in ``folder/seed<k>``.
            folder: The folder of the run. It is missing or empty unless ``resume``.
            resume: Continue the unfinished run in ``folder``.

        Raises:
            RefusedError: If the parts do not support the run. Nothing was trained.
            MetalossError: If the run did not finish.
        """


class ProcessTrainer:
    """Trains with the command line, ``metaloss train``, in a separate process.

    Args:
        executor: Starts the processes. With a plugin it starts them on other machines, which must
            see the folders of the runs.
        arguments: More words for the command line, such as ``--plugin FILE.py``.

    The output of a run goes to ``<folder>.log``, beside the folder. Use the trainer in a ``with``
    statement: at its end, runs that have not finished are interrupted.

    Attributes:
        room: The number of runs that the executor can train at the same time.
    """

    def __init__(self, *, executor: Executor, arguments: Sequence[str] = ()) -> None:
        self._executor, self._arguments = executor, list(arguments)
        self.room = executor.room

    def __enter__(self) -> ProcessTrainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __call__(self, overrides: list[str], folder: Path, *, resume: bool) -> str:
        """Train one run; see `Train`."""
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
        """Interrupt the runs as Ctrl-C does: each writes a checkpoint. Start no more runs."""
        self._executor.stop()


def run_command(words: Sequence[str], log: Path) -> int:
    """Run ``metaloss WORDS`` in this process; return its exit status.

    Args:
        words: The words of the command line.
        log: The file to which the output is appended.

    Raises:
        MetalossError: If this machine does not see the log's folder.
    """
    require_folder(log.parent)
    with log.open("ab") as output, _printing_to(output.fileno()), shared_words():
        # By name, because the command line is in a higher layer.
        return int(importlib.import_module("metaloss.cli.main").main(list(words)))


@contextmanager
def _printing_to(file: int) -> Iterator[None]:
    """Redirect everything that this process and its libraries print to a file."""
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
        with suppress(OSError, ValueError):  # a full disk, or a closed pipe
            stream.flush()


class Watch(Protocol):
    """Receives what happens while runs are trained."""

    def started(self, job: Job) -> None:
        """A run has started."""

    def ended(self, job: Job, message: str) -> None:
        """A run has ended. If it failed, ``message`` is the reason."""

    def look(self) -> None:
        """Called a few times a second, to update a display."""


def train_missing(
    jobs: Sequence[Job], train: Train, *, workers: int, watch: Watch, together: int = 1
) -> None:
    """Train every unfinished job, ``workers`` at a time. The longest ones start first.

    Jobs of equal cost start in the given order, so the rows of a study's first block come first.

    Up to ``together`` seeds of a row are trained in one program, which counts as one of the
    ``workers``. If the parts do not support this, the seeds are trained one after the other. Ctrl-C
    (or another signal that ends a program) interrupts the runs and starts no more. The same call
    continues them later.

    Raises:
        MetalossError: If a run failed. The other runs were trained.
        KeyboardInterrupt: After Ctrl-C.
    """
    units = programs([job for job in jobs if job.state is not State.finished], together)
    units.sort(
        key=lambda unit: -sum(job.cost for job in unit)
    )  # a stable sort keeps the given order
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
    """Return the jobs to train in one program: new ones of one row with consecutive seeds."""
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
    """Return for each job the reason why it has no finished run; empty if it has one."""
    for job in unit:
        watch.started(job)
    if len(unit) > 1:
        words, folder = [*unit[0].overrides, f"seeds={len(unit)}"], unit[0].folder.parent
        stopped = was_stopped(unit)
        if stopped and (busy := _wait([folder / FIRST / job.folder.name for job in unit])):
            return [busy] * len(unit)
        try:
            status = train(words, folder, resume=stopped)
        except RefusedError:
            return [_train_one(job, train) for job in unit]
        except MetalossError as error:
            return [_ending(job) and str(error) for job in unit]
        if status == "diverged" and can_resume(folder):
            # One seed has diverged there; the others can be trained alone.
            return [_train_one(job, train) for job in unit]
        return [_ending(job, folder) for job in unit]
    return [_train_one(unit[0], train)]


def _wait(folders: Sequence[Path]) -> str:
    """Wait until no process trains in the folders; return a message if one goes on for long.

    An earlier call may have been killed: its runs are still writing their checkpoints.
    """
    began = time.monotonic()
    while busy := [folder for folder in folders if is_busy(folder)]:
        if time.monotonic() - began > _PATIENCE_SECONDS:
            return f"{busy[0]} is being trained by another process: wait for it, or end it"
        time.sleep(0.2)
    return ""


def _train_one(job: Job, train: Train) -> str:
    if busy := _wait([job.folder]):
        return busy
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
    """Return why a run has no summary; empty if it has one. ``trained``: the folder of a group."""
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
        # A short wait, so that the progress display is updated and Ctrl-C is noticed.
        done, waiting = wait(waiting, timeout=0.3, return_when=FIRST_COMPLETED)
        look()
        for future in sorted(done, key=lambda future: futures[future][0].folder):
            yield futures[future], future.result()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it printed nothing"
