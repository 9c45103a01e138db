"""What tests of several layers share: their order, a quick disk, an executor of their own.

Nothing is imported here but what pytest has: its first process reads this file before it begins the
ones that test, and needs none of the rest.
"""

import gc
import os
import signal
from types import SimpleNamespace

import pytest

# Tests that begin processes, or share what takes seconds to make. They are the first ones of one of
# pytest's processes: what they share is then made once.
FIRST = ("tests/sharded/", "tests/faults/", "tests/core/runs/", "tests/study/launch/", "tests/cli/")


def pytest_collection_modifyitems(items):
    """Begin with the tests that share most; a process that is done takes tests from the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Let the garbage collector leave aside what all tests have: else it goes through millions.

    It took a quarter of the time of the collection, for nothing: all that is imported stays. In the
    tests, which trace small graphs all the time, it took a twentieth: it looks less often.
    """
    gc.disable()
    gc.set_threshold(20_000, 50)
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def interrupts_arrive():
    """Take SIGINT as Python does: a shell starts what is in the background with it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def quick_disk():
    """Do not wait for the disk, as a run does some thirty times.

    It would be a tenth of the time of all tests. That the files are written in the order that a
    power failure needs is tested by fakes of `os.fsync`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def quick_seed():
    """Seed the CPU's generator alone where nothing else computes.

    For each other kind of device `torch.manual_seed` writes down the stack of its caller, which is
    deep in a test: some milliseconds, thousands of times.
    """
    import torch

    with pytest.MonkeyPatch.context() as patch:
        if not torch.accelerator.is_available():
            patch.setattr(torch, "manual_seed", torch.default_generator.manual_seed)
        yield


@pytest.fixture
def near(monkeypatch):
    """Return an executor's options class, which is known as ``near``."""
    from metaloss.core.execution import executor

    from .near import Near

    point = SimpleNamespace(name="near", load=lambda: Near)
    monkeypatch.setattr(executor, "entry_points", lambda group: [point])
    for name, empty in (("opened", []), ("lost", set()), ("stopped", set())):
        monkeypatch.setattr(Near, name, empty)
    return Near
