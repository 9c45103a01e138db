"""What tests of several layers share: a Ray that is none."""

import sys
import types
from concurrent.futures import Future
from functools import partial
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import pytest

try:
    import cloudpickle
except ImportError:  # older versions of joblib bring their own
    from joblib.externals import cloudpickle


class FakeRay(types.ModuleType):
    """As much of Ray as is used. A task is done when it is begun, and known to be last ones first.

    Tasks with a number in ``lost`` lose their worker; with ``held`` they wait to be cancelled, and
    mind it only by force with ``deaf``.
    """

    def __init__(self):
        super().__init__("ray")
        self.__spec__ = ModuleSpec("ray", None)
        self.cloudpickle, self.resources = cloudpickle, {"CPU": 4.0}
        self.options, self.inits, self.begun, self.cancelled = [], [], [], []
        self.lost, self.held, self.deaf, self.connected = set(), False, False, False
        names = (
            *("TaskCancelledError", "RayTaskError", "WorkerCrashedError", "NodeDiedError"),
            *("OutOfMemoryError", "ObjectLostError"),
        )
        self.exceptions = SimpleNamespace(**{name: type(name, (Exception,), {}) for name in names})

    def is_initialized(self):
        return self.connected

    def init(self, **options):
        self.inits.append(options)
        self.connected = True

    def shutdown(self):
        self.connected = False

    def cluster_resources(self):
        return self.resources

    def put(self, value):
        return value

    def remote(self, **options):
        self.options.append(options)
        return lambda function: SimpleNamespace(remote=partial(self._begin, function))

    def wait(self, references, *, timeout, num_returns=1):
        done = [reference for reference in references if reference.done()][-num_returns:]
        return done, [reference for reference in references if reference not in done]

    def get(self, reference):
        try:
            return reference.result(timeout=20)
        except tuple(vars(self.exceptions).values()):
            raise
        except Exception as error:
            wrapped = self.exceptions.RayTaskError("a long story")
            wrapped.cause = error
            raise wrapped from error

    def cancel(self, reference, *, force=False):
        self.cancelled.append((self.begun.index(reference), force))
        if not reference.done() and (force or not self.deaf):
            reference.set_exception(self.exceptions.TaskCancelledError("a long story"))

    def _begin(self, function, *arguments):
        reference = Future()
        self.begun.append(reference)
        if len(self.begun) - 1 in self.lost:
            reference.set_exception(self.exceptions.WorkerCrashedError("a long story"))
        elif not self.held:
            try:
                reference.set_result(function(*arguments))
            except Exception as error:
                reference.set_exception(error)
        return reference


@pytest.fixture
def fake_ray(monkeypatch):
    """Stand in for the module ``ray``."""
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return fake


@pytest.fixture
def no_ray(monkeypatch):
    """As if Ray were not installed."""
    monkeypatch.setattr("metaloss.core.search.ray_cluster.find_spec", lambda name: None)
