"""Functions called as Ray tasks."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, TypeVar

import ray
from ray import cloudpickle, exceptions

from metaloss.core.execution.executor import Executor, LostError, StoppedError
from metaloss.errors import MetalossError
from metaloss_ray.cluster import connected
from metaloss_ray.options import Ray
from metaloss_ray.worker import Place, work

# An interrupted call writes its checkpoint, for which a run has 30 seconds.
_STOP_SECONDS = 45.0
# What Ray raises where a task's worker, or its result, is gone.
_LOST = (
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.OutOfMemoryError,
    exceptions.ObjectLostError,
)

T = TypeVar("T")


class RayExecutor(Executor):
    """See `Executor`. Every call is a task; Ray lets them wait until there is room.

    Args:
        options: Which Ray, and what each task takes of it.
        threads: Threads of each call, and its CPUs unless the options say them.
        keep: Whether a worker may serve one call after another.

    Raises:
        MetalossError: If no cluster answers, or this machine is too small for any task.
    """

    def __init__(self, options: Ray, *, threads: int | None = None, keep: bool = True) -> None:
        cpus = options.num_cpus or float(threads or 1)
        self._threads = threads or max(1, int(cpus))
        self._place = Place()
        with ExitStack() as opened:
            opened.enter_context(connected(options.address))
            self.room = _room(options, {"CPU": cpus, "GPU": options.num_gpus})
            try:
                # Not retried: what a task has written would be in the way of a second one.
                self._work = ray.remote(
                    num_cpus=cpus,
                    num_gpus=options.num_gpus,
                    max_retries=0,
                    max_calls=0 if keep else 1,
                )(work)
            except ValueError as error:
                raise MetalossError(f"hydra.launcher: {str(error).splitlines()[0]}") from error
            self._stack = opened.pop_all()
        self._unfinished: dict[Future[Any], Any] = {}
        self._stopped = False

    def submit(self, function: Callable[..., T], *arguments: object) -> Future[T]:
        """See `Executor`."""
        if self._stopped:
            raise StoppedError("stopped")
        # Bytes, which the worker reads once it is where this process is.
        call = cloudpickle.dumps((function, arguments))
        reference = self._work.remote(self._place, self._threads, call)
        future: Future[T] = Future()
        self._unfinished[future] = reference
        reference.future().add_done_callback(lambda ended: self._hand_over(ended, future))
        if self._stopped:  # meanwhile, by another thread
            ray.cancel(reference)
        return future

    def stop(self) -> None:
        """See `Executor`; end by force what has not ended after a while. Leave Ray."""
        if self._stopped:
            return
        self._stopped = True
        left = list(self._unfinished.values())
        for reference in left:
            ray.cancel(reference)
        try:
            if left:
                _, left = ray.wait(left, num_returns=len(left), timeout=_STOP_SECONDS)
        finally:  # also after a second Ctrl-C
            for reference in left:
                ray.cancel(reference, force=True)
            self._stack.close()
            for future in list(self._unfinished):
                self._end(future, error=StoppedError("stopped"))

    def _hand_over(self, ended: Future[T], future: Future[T]) -> None:
        error = ended.exception()
        if error is None:
            self._end(future, result=ended.result())
        elif isinstance(error, exceptions.TaskCancelledError):
            self._end(future, error=StoppedError("stopped"))
        elif isinstance(error, exceptions.RayTaskError):
            self._end(future, error=error.cause)
        elif isinstance(error, _LOST):
            self._end(future, error=LostError(f"its worker was lost ({type(error).__name__})"))
        else:
            self._end(future, error=error)

    def _end(
        self, future: Future[Any], *, result: Any = None, error: BaseException | None = None
    ) -> None:
        if self._unfinished.pop(future, None) is None:  # ended already
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _room(options: Ray, wanted: dict[str, float]) -> int:
    """Return how many tasks fit at once into what the cluster has now; at least 1.

    Raises:
        MetalossError: If no task can ever begin. Ray would wait: a cluster may grow, a machine
            cannot.
    """
    total = ray.cluster_resources()
    may_grow = options.address not in (None, "local") or "RAY_ADDRESS" in os.environ
    for kind, number in wanted.items():
        if number > total.get(kind, 0) and not may_grow:
            raise MetalossError(
                f"each task asks for {number:g} {kind}s, and Ray has {total.get(kind, 0):g} on "
                "this machine"
            )
    return max(1, int(min(total.get(kind, 0) / n for kind, n in wanted.items() if n)))
