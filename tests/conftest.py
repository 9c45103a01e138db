"""What tests of several layers share: their order, a quick disk, an executor of their own."""

import gc
import os
from concurrent.futures import Future
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import pytest

from metaloss.core.execution import executor
from metaloss.core.execution.executor import Executor, ExecutorOptions, StoppedError
from metaloss.core.execution.processes import Processes
from metaloss.errors import MetalossError

# Tests that begin processes, or share what takes seconds to make. They are the first ones of one of
# pytest's processes: what they share is then made once.
FIRST = ("tests/sharded/", "tests/faults/", "tests/core/runs/", "tests/study/launch/", "tests/cli/")


def pytest_collection_modifyitems(items):
    """Begin with the tests that share most; a process that is done takes tests from the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Let the garbage collector leave aside what all tests have: else it goes through millions.

    It took a quarter of the time of the collection, for nothing: all that is imported stays.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def quick_disk():
    """Do not wait for the disk, as a run does some thirty times.

    It would be a tenth of the time of all tests. That the files are written in the order that a
    power failure needs is tested by fakes of `os.fsync`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: None)
        yield


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


@pytest.fixture
def near(monkeypatch):
    """Return an executor's options class, which is known as ``near``."""
    point = SimpleNamespace(name="near", load=lambda: Near)
    monkeypatch.setattr(executor, "entry_points", lambda group: [point])
    for name, empty in (("opened", []), ("lost", set()), ("stopped", set())):
        monkeypatch.setattr(Near, name, empty)
    return Near
