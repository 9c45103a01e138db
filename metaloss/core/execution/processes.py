"""The built-in executor: processes on this machine, forked off one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from metaloss.core.execution import preload
from metaloss.core.execution.executor import Executor, ExecutorOptions, LostError, StoppedError
from metaloss.core.execution.worker import work

# How long an interrupted call may take: a run writes its checkpoint.
PATIENCE_SECONDS = 30.0
# macOS forks, but its own libraries do not survive it.
CONTEXT = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
_SERVER_DIED = 255  # what multiprocessing says of a process whose end nobody has seen

# Beginning a process looks after those that have ended, and two threads must not do so at once.
_one_at_a_time = threading.Lock()

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Processes(ExecutorOptions):
    """Processes on this machine.

    Attributes:
        count: How many calls run at once.
    """

    count: int = 2

    def open(self, *, threads: int | None = None, keep: bool = True) -> Executor:
        """See `ExecutorOptions`."""
        return _Pool(self.count, threads or 1, keep)


class _Pool(Executor):
    """See `Executor`. A process that dies fails its own call alone; others are not concerned."""

    def __init__(self, count: int, threads: int, keep: bool) -> None:
        self.room = count
        self._threads, self._keep, self._stopped = threads, keep, False
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="metaloss-call")
        self._changed = threading.Condition()
        self._busy: set[_Worker] = set()
        self._idle: list[_Worker] = []

    def submit(self, function: Callable[..., T], *arguments: object) -> Future[T]:
        """See `Executor`."""
        if self._stopped:
            raise StoppedError("stopped")
        return self._pool.submit(self._call, function, arguments)

    def stop(self) -> None:
        """See `Executor`; kill what has not ended after a while, or after a second Ctrl-C."""
        with self._changed:
            self._stopped = True
            for worker in self._busy:
                worker.interrupt()
            try:
                self._changed.wait_for(lambda: not self._busy, PATIENCE_SECONDS)
            finally:
                for worker in self._busy:
                    worker.kill()
                self._changed.wait_for(lambda: not self._busy)
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()
        self._pool.shutdown()

    def _call(self, function: Callable[..., T], arguments: tuple[object, ...]) -> T:
        worker = self._take()
        try:
            worker.await_start()
            with self._changed:
                if self._stopped:
                    raise StoppedError("stopped")
                worker.ask(function, arguments)
            return worker.answer()
        except (EOFError, OSError) as error:
            ending = worker.end()
            raise StoppedError("stopped") if self._stopped else LostError(ending) from error
        finally:
            self._give_back(worker)

    def _take(self) -> _Worker:
        with self._changed:
            if self._stopped:
                raise StoppedError("stopped")
            worker = self._idle.pop() if self._idle else None
        worker = worker or _Worker(self._threads)
        with self._changed:
            self._busy.add(worker)
        return worker

    def _give_back(self, worker: _Worker) -> None:
        keep = self._keep and worker.lives and not self._stopped
        if not keep:
            worker.end()
        with self._changed:
            self._busy.discard(worker)
            if keep:
                self._idle.append(worker)
            self._changed.notify_all()


class _Worker:
    """A process and the pipe to it."""

    def __init__(self, threads: int) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._asked = False
        environment = dict(os.environ) | dict.fromkeys(preload.THREADS, str(threads))
        with theirs:
            self._process = _begin(work, theirs, environment, threads)

    @property
    def lives(self) -> bool:
        """Whether the process has not ended, and nobody has asked it to."""
        return not self._pipe.closed and not wait([self._process.sentinel], 0)

    def await_start(self) -> None:
        """Wait until the process, if it is new, can be interrupted."""
        if not self._asked:
            self._receive()

    def ask(self, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
        """Begin a call."""
        self._asked = True
        self._pipe.send_bytes(pickle.dumps((function, arguments)))

    def answer(self) -> Any:
        """Return what the call returned, or raise what it raised."""
        result, error = self._receive()
        if error is not None:
            raise error
        return result

    def interrupt(self) -> None:
        """Do what Ctrl-C does, if the process was asked anything."""
        if self._asked:
            self._signal(signal.SIGINT)

    def kill(self) -> None:
        """End the process at once."""
        self._signal(signal.SIGKILL)

    def end(self) -> str:
        """Let the process end, and wait for it; return how it ended."""
        if self._pipe.closed:
            return ""
        self._pipe.close()
        if not wait([self._process.sentinel], PATIENCE_SECONDS):
            self.kill()
            wait([self._process.sentinel])
        with _one_at_a_time:
            self._process.join()
        status = self._process.exitcode
        if status == _SERVER_DIED:
            self.kill()
            return "the process that begins others is gone"
        if status is not None and status < 0:
            return f"its process was ended by {signal.Signals(-status).name}"
        return f"its process ended by itself, with status {status}"

    def _receive(self) -> Any:
        wait([self._pipe, self._process.sentinel])
        if not self._pipe.poll():  # the fork server is gone, and its process may be alive
            raise EOFError
        return self._pipe.recv()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._process.pid or 0, number)


def _begin(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Begin a process by fork, or anew where the fork server fails: killed from outside, say."""
    contexts: list[Any] = [CONTEXT, multiprocessing.get_context("spawn")]
    with _one_at_a_time:
        for context in contexts:
            context.set_forkserver_preload([preload.__name__])
            process: BaseProcess = context.Process(target=function, args=arguments)
            try:
                process.start()
            except (EOFError, OSError):
                continue
            return process
    raise LostError("no process could be begun: too many, or too little memory")
