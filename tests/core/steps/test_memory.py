"""Long runs hold no more than short ones."""

import gc

import pytest
import torch
from torch import nn

from metaloss.contracts import Progress

from ..plain_autograd_loop import first_state
from ..small_setups import net, resident_bytes, setup


@pytest.fixture(autouse=True)
def only_new_objects():
    """Leave aside what was there before: to go through all modules takes a second each time."""
    gc.collect()
    gc.freeze()


def live_tensors():
    """Return the number of tensors that were made since the test began and are still there."""
    gc.collect()
    return sum(1 for one in gc.get_objects() if type(one) is torch.Tensor)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("schedule=online", "inner=adam"),
        ("schedule=online", "schedule.unroll=3"),
        ("schedule=online", "schedule.meta_batch=next"),
    ],
)
def test_168_online_steps_hold_no_more_than_24(words):
    parts = setup(*words, model=net(nn.BatchNorm1d(5), nn.Dropout(0.2)))
    state, progress = first_state(parts), Progress()
    counts, held = [], []

    def go_to(steps):
        nonlocal state, progress
        while progress.train < steps:
            plan = parts.schedule.plan(progress, 10_000)
            state = parts.advance(state, plan, progress)
            progress = Progress(train=progress.train + plan.unroll)
        counts.append(live_tensors())
        held.append(resident_bytes())

    # Multiples of the window and of an epoch (8 batches): the same phase of both.
    for steps in (24, 72, 168):
        go_to(steps)
    assert counts[0] == counts[1] == counts[2]
    # A step's graph left behind would be some 100 kB, 9.6 MB over 96 steps.
    assert held[2] - held[1] < 5e6


def test_the_count_sees_a_tensor_that_is_kept():
    before = live_tensors()
    kept = [torch.zeros(3), torch.zeros(2)]
    assert live_tensors() == before + len(kept)
