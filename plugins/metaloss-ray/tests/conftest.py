"""A Ray without processes: what is asked of it is noted, and calls are done at once."""

from concurrent.futures import Future
from functools import partial
from types import SimpleNamespace

import pytest


class Reference(Future):
    """What Ray gives for a task."""

    def future(self):
        return self


class FakeRay:
    """As much of Ray as is used.

    Tasks with a number in ``lost`` lose their worker; with ``held`` they wait to be cancelled, and
    mind it only by force with ``deaf``.
    """

    def __init__(self, exceptions):
        self.exceptions, self.resources = exceptions, {"CPU": 4.0}
        self.options, self.inits, self.begun, self.cancelled = [], [], [], []
        self.lost, self.held, self.deaf, self.connected = set(), False, False, False

    def is_initialized(self):
        return self.connected

    def init(self, **options):
        self.inits.append(options)
        self.connected = True

    def shutdown(self):
        self.connected = False

    def cluster_resources(self):
        return self.resources

    def remote(self, **options):
        self.options.append(options)
        return lambda function: SimpleNamespace(remote=partial(self._begin, function))

    def wait(self, references, *, num_returns, timeout):
        return [], [reference for reference in references if not reference.done()]

    def cancel(self, reference, *, force=False):
        self.cancelled.append((self.begun.index(reference), force))
        if not reference.done() and (force or not self.deaf):
            reference.set_exception(self.exceptions.TaskCancelledError())

    def _begin(self, function, *arguments):
        reference = Reference()
        self.begun.append(reference)
        if len(self.begun) - 1 in self.lost:
            reference.set_exception(self.exceptions.WorkerCrashedError())
        elif not self.held:
            try:
                reference.set_result(function(*arguments))
            except Exception as error:
                wrapped = self.exceptions.RayTaskError("work", "a long story", error)
                reference.set_exception(wrapped.as_instanceof_cause())
        return reference


@pytest.fixture
def fake_ray(monkeypatch):
    """Stand in for what Ray does."""
    ray = pytest.importorskip("ray")
    fake = FakeRay(ray.exceptions)
    for name in ("is_initialized", "init", "shutdown", "cluster_resources", "remote", "wait"):
        monkeypatch.setattr(ray, name, getattr(fake, name))
    monkeypatch.setattr(ray, "cancel", fake.cancel)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return fake
