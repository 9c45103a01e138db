"""Evaluates the groups of a search, in this process or in others.

The results are the same, because a group is plain data and depends on nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager

from metaloss.core.execution.executor import Executor, ExecutorOptions, LostError, find, names
from metaloss.core.execution.processes import Processes
from metaloss.core.parts.setup import Setup
from metaloss.core.search.groups import Group, evaluate_elsewhere, evaluate_group
from metaloss.core.search.population import Evaluated
from metaloss.errors import MetalossError
from metaloss.meta_optimizers.search import SearchRule

_TRIES = 3


class Workers(ABC):
    """Evaluates groups of candidates.

    Attributes:
        lost: The number of processes that died. Their groups were given to others.
    """

    lost: int = 0

    @abstractmethod
    def evaluate(
        self, groups: Sequence[Group], between: Callable[[], None]
    ) -> list[list[Evaluated]]:
        """Return the results in the order of the groups. ``between`` is called while waiting."""


@contextmanager
def open_workers(setup: Setup, config: str) -> Iterator[Workers]:
    """Yield the workers that a run asks for; others make the same setup from ``config``."""
    assert setup.search is not None
    if setup.search.workers == "1":
        yield Here(setup)
        return
    with executor_options(setup.search).open(threads=1) as executor:
        yield Elsewhere(executor, config, setup.search.workers)


class Here(Workers):
    """This process."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    def evaluate(
        self, groups: Sequence[Group], between: Callable[[], None]
    ) -> list[list[Evaluated]]:
        """See `Workers`."""
        results = []
        for group in groups:
            between()
            results.append(evaluate_group(self._setup, group))
        return results


class Elsewhere(Workers):
    """Other processes of an executor, on this machine or on others.

    ``config`` is the run's configuration as text, ``asked`` the value of
    ``meta_optimizer.workers``.
    """

    def __init__(self, executor: Executor, config: str, asked: str) -> None:
        self._executor, self._config, self._asked = executor, config, asked

    def evaluate(
        self, groups: Sequence[Group], between: Callable[[], None]
    ) -> list[list[Evaluated]]:
        """See `Workers`."""
        results: dict[int, list[Evaluated]] = {}
        tries = [1] * len(groups)
        waiting = {self._begin(group): number for number, group in enumerate(groups)}
        while waiting:
            between()
            for future in wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED).done:
                number = waiting.pop(future)
                try:
                    results[number] = future.result()
                except LostError as error:
                    self.lost += 1
                    if tries[number] == _TRIES:
                        raise MetalossError(
                            f"meta_optimizer.workers={self._asked}: a group of candidates was lost "
                            f"{_TRIES} times ({error}): use fewer workers, or a smaller "
                            "meta_optimizer.group"
                        ) from error
                    tries[number] += 1
                    waiting[self._begin(groups[number])] = number
        return [results[number] for number in range(len(groups))]

    def _begin(self, group: Group) -> Future[list[Evaluated]]:
        return self._executor.submit(evaluate_elsewhere, self._config, group)


def executor_options(rule: SearchRule) -> ExecutorOptions:
    """Return the executor that a search asks for.

    Raises:
        MetalossError: If there is no executor of that name, or it has no such option.
    """
    if rule.workers.isdigit():
        return Processes(count=int(rule.workers))
    given = {} if rule.address is None else {"address": rule.address}
    if rule.workers not in names():
        raise MetalossError(
            f"meta_optimizer.workers={rule.workers}: expected a number ≥ 1 or an executor "
            f"({', '.join(names())})"
        )
    try:
        return find(rule.workers, f"meta_optimizer.workers={rule.workers}")(**given)
    except TypeError as error:
        raise MetalossError(f"meta_optimizer.workers={rule.workers} has no address") from error
