"""Who evaluates the groups of a search: the order of results, and workers that are lost."""

from concurrent.futures import Future

import pytest

from metaloss.contracts import Candidate
from metaloss.core.execution.executor import LostError
from metaloss.core.execution.processes import Processes
from metaloss.core.search.groups import grouped
from metaloss.core.search.workers import Elsewhere, executor_options
from metaloss.errors import MetalossError
from metaloss.meta_optimizers.search import SearchRule


class Losing:
    """An executor that loses some calls, by the number of their candidate."""

    def __init__(self, lost):
        self.lost, self.begun = dict(lost), 0

    def submit(self, function, config, group):
        self.begun += 1
        future, number = Future(), group[0][0]["number"]
        if self.lost.get(number, 0):
            self.lost[number] -= 1
            future.set_exception(LostError("killed"))
        else:
            future.set_result([f"evaluated {number}"])
        return future


def groups(count):
    return grouped([Candidate(options={"number": number}) for number in range(count)], 1)


def workers(lost):
    return Elsewhere(Losing(lost), "", "near")


def test_results_come_in_the_order_of_the_groups():
    asked = []
    found = workers({}).evaluate(groups(4), lambda: asked.append(1))
    assert found == [[f"evaluated {k}"] for k in range(4)]
    assert asked


def test_a_lost_group_is_given_to_another_worker_and_counted():
    executor = Losing({1: 2, 3: 1})
    found = Elsewhere(executor, "", "near")
    assert found.evaluate(groups(4), lambda: None) == [[f"evaluated {k}"] for k in range(4)]
    assert found.lost == 3
    assert executor.begun == 4 + 3


def test_a_group_that_is_always_lost_ends_the_search_with_a_reason():
    with pytest.raises(MetalossError, match=r"workers=near: a group .* lost 3 times \(killed\)"):
        workers({0: 9}).evaluate(groups(1), lambda: None)


def test_groups_follow_the_order_of_the_candidates_alone():
    candidates = [Candidate(options={"number": number}) for number in range(5)]
    found = grouped(candidates, 2)
    numbers = [[options["number"] for options, _ in group] for group in found]
    assert numbers == [[0, 1], [2, 3], [4]]


def test_a_number_asks_for_processes_and_a_name_for_an_executor(near):
    assert executor_options(Rule(workers="3")) == Processes(count=3)
    assert executor_options(Rule(workers="near")) == near()


def test_what_cannot_evaluate_is_told_before_a_search_begins(near):
    with pytest.raises(MetalossError, match=r"^meta_optimizer\.workers=ray needs the plugin metal"):
        executor_options(Rule(workers="ray"))
    with pytest.raises(MetalossError, match=r"^meta_optimizer\.workers=near has no address$"):
        executor_options(Rule(workers="near", address="10.0.0.1"))
    with pytest.raises(
        MetalossError, match=r"workers=two: expected a number ≥ 1 or an executor \("
    ):
        executor_options(Rule(workers="two"))
    with pytest.raises(MetalossError, match=r"address=x with workers=2: expected workers"):
        Rule(workers="2", address="x")


class Rule(SearchRule):
    """A search that never is."""

    def search(self, *_):
        raise AssertionError("not reached")
