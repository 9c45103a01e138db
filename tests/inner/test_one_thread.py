"""Threads of one process do not disturb each other's derivatives and draws."""

import os
import signal
import threading

import pytest
import torch

from metaloss.core.parts.runtime import seeded
from metaloss.inner.forward_mode import jvp
from metaloss.inner.model import randomness
from metaloss.inner.one_thread import one_thread


def derivative(meet):
    def function(x):
        meet()
        return x.sin()

    return jvp(function, (torch.zeros(3),), (torch.ones(3),))[1]


def draw(meet):
    with seeded(0, "test"):
        first = torch.rand(3)
        meet()
        return torch.cat((first, torch.rand(3)))


def foreign(meet):
    with randomness.seeded(randomness.sources([]), 3):
        first = torch.rand(3)
        meet()
        return torch.cat((first, torch.rand(3)))


@pytest.mark.parametrize("work", [derivative, draw, foreign])
def test_two_threads_get_what_one_gets(work):
    alone = work(lambda: None)
    barrier, met, found = threading.Barrier(2), [], []

    def meet():
        try:
            barrier.wait(0.2)
            met.append(True)
        except threading.BrokenBarrierError:
            pass

    threads = [threading.Thread(target=lambda: found.append(work(meet))) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(20)
    assert not met
    assert len(found) == 2
    for one in found:
        assert torch.equal(one, alone)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_a_thread_that_it_does_not_have():
    held, done = threading.Event(), threading.Event()

    def hold():
        with one_thread():
            held.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(20)
    child = os.fork()
    if not child:
        signal.alarm(10)
        with one_thread():
            os._exit(7)
    done.set()
    thread.join(20)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
