"""Who judges the groups of a search: the order of results, and workers that are lost."""

import socket
from types import SimpleNamespace

import pytest

from metaloss.contracts import Candidate
from metaloss.core.search.jobs import Job, grouped
from metaloss.core.search.ray_cluster import knock
from metaloss.core.search.workers import OnRay
from metaloss.errors import MetalossError


class CrashedError(Exception):
    """What Ray raises for a worker that died."""


class FakeRay:
    """As much of Ray as is used: tasks end in reverse order, and some of them are lost."""

    def __init__(self, lost):
        self.lost, self.begun = dict(lost), []
        names = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError")
        self.exceptions = SimpleNamespace(**dict.fromkeys(names, CrashedError))

    def put(self, value):
        return value

    def remote(self, **options):
        assert options == {"num_cpus": 1, "max_retries": 0}
        return lambda function: SimpleNamespace(remote=self._begin)

    def _begin(self, config, job):
        self.begun.append(job)
        return len(self.begun)

    def wait(self, references, timeout):
        return references[-1:], references[:-1]

    def get(self, reference):
        number = self.begun[reference - 1].candidates[0][0]["number"]
        if self.lost.get(number, 0):
            self.lost[number] -= 1
            raise CrashedError
        return [f"judged {number}"]


def jobs(count):
    return [Job(candidates=(({"number": number}, None),)) for number in range(count)]


def test_results_come_in_the_order_of_the_jobs():
    ray = FakeRay({})
    assert OnRay(ray, "").judge(jobs(4), lambda: None) == [[f"judged {k}"] for k in range(4)]


def test_a_lost_task_is_given_to_another_worker_and_counted():
    ray = FakeRay({1: 2, 3: 1})
    workers = OnRay(ray, "")
    assert workers.judge(jobs(4), lambda: None) == [[f"judged {k}"] for k in range(4)]
    assert workers.lost == 3
    assert len(ray.begun) == 4 + 3


def test_a_group_that_is_always_lost_ends_the_search_with_a_reason():
    with pytest.raises(MetalossError, match=r"a group of candidates was lost 3 times \(Crashed"):
        OnRay(FakeRay({0: 9}), "").judge(jobs(1), lambda: None)


def test_groups_follow_the_order_of_the_candidates_alone():
    candidates = [Candidate(options={"number": number}) for number in range(5)]
    found = grouped(candidates, 2)
    numbers = [[options["number"] for options, _ in job.candidates] for job in found]
    assert numbers == [[0, 1], [2, 3], [4]]


def test_a_cluster_is_knocked_at_before_ray_tries_for_minutes():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", None, "auto"):
            knock(address)
    with pytest.raises(OSError, match="refused"):
        knock(f"127.0.0.1:{port}")
