"""Calls in processes of this machine: their results, and how they end."""

import operator
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from metaloss.core.execution import processes
from metaloss.core.execution.executor import LostError, StoppedError, require_folder
from metaloss.core.execution.processes import Processes
from metaloss.errors import MetalossError


@pytest.fixture(scope="module")
def pool():
    with Processes(count=2).open() as opened:
        yield opened


def test_a_call_returns_what_the_function_does(pool):
    calls = [pool.submit(operator.mul, number, 2) for number in range(5)]
    assert [call.result(300) for call in calls] == [0, 2, 4, 6, 8]
    assert pool.room == 2


def test_an_error_is_the_functions_own_and_says_where_it_was(pool):
    with pytest.raises(ValueError, match=r"^invalid literal") as caught:
        pool.submit(int, "x").result(300)
    assert "worker.py" in caught.value.__notes__[0]


def test_what_cannot_be_sent_back_is_an_error_and_the_process_lives_on(pool):
    with pytest.raises(TypeError, match="pickle"):
        pool.submit(open, os.devnull).result(300)
    assert pool.submit(max, 3, 7).result(300) == 7


def test_an_error_of_ours_keeps_its_kind(pool):
    with pytest.raises(MetalossError, match=r"nowhere is not on the machine") as caught:
        pool.submit(require_folder, Path("/nowhere")).result(300)
    assert type(caught.value) is MetalossError


def test_a_process_serves_one_call_after_another_or_one_alone():
    with Processes(count=1).open() as kept:
        assert len({kept.submit(os.getpid).result(300) for _ in range(3)}) == 1
    with Processes(count=1).open(keep=False) as fresh:
        assert len({fresh.submit(os.getpid).result(300) for _ in range(3)}) == 3


def test_a_process_that_dies_fails_its_own_call_alone(pool):
    slow = pool.submit(time.sleep, 1)
    lost = pool.submit(os.kill, 0, signal.SIGKILL)  # its own group
    with pytest.raises(LostError, match=r"^its process was ended by SIGKILL$"):
        lost.result(300)
    assert slow.result(300) is None
    with pytest.raises(LostError, match=r"^its process ended by itself, with status 5$"):
        pool.submit(os._exit, 5).result(300)
    assert pool.submit(max, 3, 7).result(300) == 7


def test_stop_interrupts_what_runs_and_begins_nothing_more():
    with Processes(count=1).open() as pool:
        pool.submit(max, 3, 7).result(300)
        running, waiting = pool.submit(time.sleep, 600), pool.submit(max, 3, 7)
        time.sleep(0.5)
        pool.stop()
        for call in (running, waiting):
            with pytest.raises(StoppedError, match=r"^stopped$"):
                call.result(0)
        with pytest.raises(StoppedError, match=r"^stopped$"):
            pool.submit(max, 3, 7)


def test_what_has_not_begun_when_it_is_stopped_never_does(tmp_path):
    with Processes(count=1).open() as pool:
        call = pool.submit(os.mkdir, tmp_path / "made")
    with pytest.raises((StoppedError, LostError)):
        call.result(0)
    assert not (tmp_path / "made").exists()


def test_an_environment_and_threads_are_those_of_the_moment(pool, monkeypatch):
    monkeypatch.setenv("METALOSS_TEST", "now")
    with Processes(count=1).open(threads=3) as other:
        assert other.submit(os.getenv, "METALOSS_TEST").result(300) == "now"
        assert other.submit(os.getenv, "OMP_NUM_THREADS").result(300) == "3"
        assert other.submit(torch.get_num_threads).result(300) == 3


class Full:
    """As if the system had no room for another process."""

    def __init__(self, context):
        self._context = context

    def __getattr__(self, name):
        return getattr(self._context, name)

    def Process(self, **_):
        return self

    def start(self):
        raise BlockingIOError("Resource temporarily unavailable")


@pytest.mark.slow
def test_without_a_fork_server_processes_begin_anew(monkeypatch):
    monkeypatch.setattr(processes, "CONTEXT", Full(processes.CONTEXT))
    with Processes(count=1).open() as pool:
        assert pool.submit(max, 3, 7).result(300) == 7


def test_a_process_that_cannot_be_begun_is_told(monkeypatch):
    full = Full(processes.CONTEXT)
    monkeypatch.setattr(processes, "CONTEXT", full)
    monkeypatch.setattr(processes.multiprocessing, "get_context", lambda _: full)
    with (
        Processes(count=1).open() as pool,
        pytest.raises(LostError, match=r"^no process could be begun: too many, or too little mem"),
    ):
        pool.submit(max, 3, 7).result(300)


def test_calls_may_come_from_many_threads(pool):
    found = []

    def call(number):
        found.append(pool.submit(operator.neg, number).result(300))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [-number for number in range(7, -1, -1)]
