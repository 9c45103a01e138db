"""An executor of the tests' own, in processes of this machine, some of which get lost."""

import os
from concurrent.futures import Future
from dataclasses import dataclass
from typing import ClassVar

from metaloss.core.execution.executor import Executor, ExecutorOptions, StoppedError
from metaloss.core.execution.processes import Processes
from metaloss.errors import MetalossError


@dataclass(frozen=True, kw_only=True)
class Near(ExecutorOptions):
    """Calls functions in processes of this machine.

    Calls with a number in ``lost`` lose their process; those in ``stopped`` are interrupted.
    """

    place: str | None = None
    cpus: float = 1.0
    opened: ClassVar[list] = []
    lost: ClassVar[set] = set()
    stopped: ClassVar[set] = set()

    def __post_init__(self):
        if self.cpus <= 0:
            raise MetalossError(f"hydra.launcher.cpus={self.cpus}: expected a positive number")

    def open(self, *, threads=None, keep=True):
        self.opened.append(_NearExecutor(self, threads, keep))
        return self.opened[-1]


class _NearExecutor(Executor):
    room = 3

    def __init__(self, options, threads, keep):
        self.options, self.threads, self.keep = options, threads, keep
        self.processes = Processes(count=2).open(threads=threads, keep=keep)
        self.calls, self.is_stopped = 0, False

    def submit(self, function, *arguments):
        number = self.calls
        self.calls += 1
        if number in Near.stopped:
            future = Future()
            future.set_exception(StoppedError("stopped"))
            return future
        if number in Near.lost:
            return self.processes.submit(os._exit, 5)
        return self.processes.submit(function, *arguments)

    def stop(self):
        self.is_stopped = True
        self.processes.stop()
