"""Who judges the groups of a search: this process, others beside it, or a Ray cluster.

Whoever does it, the results are the same: a job is plain data, and depends on nothing else.
"""

from __future__ import annotations

import multiprocessing
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import torch

from metaloss.allocator import keep_freed_memory
from metaloss.core.parts.setup import Setup
from metaloss.core.search.jobs import Job, judge_elsewhere, judge_job
from metaloss.core.search.population import Judged
from metaloss.core.search.ray_cluster import connected, lost_errors
from metaloss.core.training.interrupt import ENDING
from metaloss.errors import MetalossError

_TRIES = 3


class Workers(ABC):
    """Judges jobs.

    Attributes:
        lost: Workers that were lost; their jobs were given to others.
    """

    lost: int = 0

    @abstractmethod
    def judge(self, jobs: Sequence[Job], between: Callable[[], None]) -> list[list[Judged]]:
        """Return the results in the order of the jobs; ``between`` is called while waiting."""


@contextmanager
def open_workers(setup: Setup, config: str) -> Iterator[Workers]:
    """Yield the workers that a run asks for; ``config`` is what others make the same setup from."""
    assert setup.search is not None
    asked = setup.search.workers
    if asked == "1":
        yield Here(setup)
        return
    if asked == "ray":
        with connected(setup.search.address, "meta_optimizer.address") as ray:
            yield OnRay(ray, config)
        return
    processes = Processes(int(asked), config)
    try:
        yield processes
    finally:
        processes.close()


class Here(Workers):
    """This process."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    def judge(self, jobs: Sequence[Job], between: Callable[[], None]) -> list[list[Judged]]:
        """See `Workers`."""
        results = []
        for job in jobs:
            between()
            results.append(judge_job(self._setup, job))
        return results


class Processes(Workers):
    """Processes on this machine, of one thread each."""

    def __init__(self, count: int, config: str) -> None:
        self._count, self._config = count, config
        self._pool = self._new_pool()

    def judge(self, jobs: Sequence[Job], between: Callable[[], None]) -> list[list[Judged]]:
        """See `Workers`."""
        results: dict[int, list[Judged]] = {}
        for _ in range(_TRIES):
            missing = [number for number in range(len(jobs)) if number not in results]
            futures = {
                n: self._pool.submit(judge_elsewhere, self._config, jobs[n]) for n in missing
            }
            broken = False
            for number, future in futures.items():
                try:
                    results[number] = _waited(future, between)
                except BrokenProcessPool:
                    broken = True
            if not broken:
                return [results[number] for number in range(len(jobs))]
            self.lost += 1
            self.close()
            self._pool = self._new_pool()
        raise MetalossError(
            f"meta_optimizer.workers={self._count}: workers were lost {_TRIES} times in one "
            "generation (out of memory?): use fewer of them, or a smaller meta_optimizer.group"
        )

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(cancel_futures=True)

    def _new_pool(self) -> ProcessPoolExecutor:
        # Not fork: torch's threads and CUDA do not survive it.
        return ProcessPoolExecutor(
            self._count, multiprocessing.get_context("spawn"), initializer=_begin_worker
        )


class OnRay(Workers):
    """A Ray cluster: as many tasks at once as it has CPUs."""

    def __init__(self, ray: Any, config: str) -> None:
        self._ray = ray
        self._config = ray.put(config)
        # Retried here and not by Ray, so that losses are counted.
        self._task = ray.remote(num_cpus=1, max_retries=0)(_judge_on_ray)

    def judge(self, jobs: Sequence[Job], between: Callable[[], None]) -> list[list[Judged]]:
        """See `Workers`."""
        ray, results = self._ray, {}
        tries = dict.fromkeys(range(len(jobs)), 0)
        waiting = {self._task.remote(self._config, job): n for n, job in enumerate(jobs)}
        while waiting:
            between()
            done, _ = ray.wait(list(waiting), timeout=0.5)
            for reference in done:
                number = waiting.pop(reference)
                try:
                    results[number] = ray.get(reference)
                except lost_errors(ray) as error:
                    self.lost += 1
                    tries[number] += 1
                    if tries[number] == _TRIES:
                        raise MetalossError(
                            f"meta_optimizer.workers=ray: a group of candidates was lost {_TRIES} "
                            f"times ({type(error).__name__}): use a smaller meta_optimizer.group"
                        ) from error
                    waiting[self._task.remote(self._config, jobs[number])] = number
        return [results[number] for number in range(len(jobs))]


def _judge_on_ray(config: str, job: Job) -> list[Judged]:
    torch.set_num_threads(1)
    keep_freed_memory()
    return judge_elsewhere(config, job)


def _waited(future: Future[list[Judged]], between: Callable[[], None]) -> list[Judged]:
    while True:
        between()
        try:
            return future.result(timeout=0.5)
        except TimeoutError:
            continue


def _begin_worker() -> None:
    # Ctrl-C reaches every process of a terminal: the first one decides what it means. The pool
    # itself ends its processes by SIGTERM.
    for number in ENDING:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    keep_freed_memory()
