"""Steps in a row: the same as one after the other, and a record that can be walked back over."""

import pytest
import torch
from torch.utils import _pytree as pytree

from metaloss.inner.steps import take_steps
from metaloss.testing.tiny_problems import tiny_problems
from metaloss.types import ReplayStep, StoredStep


@pytest.fixture(params=["SGD with momentum, unroll 3", "Adam, unroll 3"])
def tiny(request):
    return next(one for one in tiny_problems() if one.name == request.param)


def take(tiny, **more):
    return take_steps(tiny.problem, tiny.phi, tiny.state, tiny.window.steps, **more)


def equal(a, b):
    a, b = pytree.tree_leaves(a), pytree.tree_leaves(b)
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_they_are_the_steps_one_after_the_other(tiny):
    state, inner, task = tiny.plain(tiny.phi)
    found = take(tiny)
    assert not equal(found.state.params, tiny.state.params)
    assert equal((found.state, found.losses.inner, found.losses.train_task), (state, inner, task))


def test_a_record_leads_to_the_next(tiny):
    found = take(tiny)
    assert [type(record) for record in found.records] == [StoredStep] * 3
    after = [record.state for record in found.records[1:]] + [found.state]
    for record, state in zip(found.records, after, strict=True):
        stepped = tiny.problem.step(tiny.phi, record.state, record.batch, record.key)
        assert equal((stepped.state, stepped.grads), (state, record.grads))


def test_states_are_kept_where_it_is_said(tiny):
    found = take(tiny, keeps=lambda index: index == 1)
    assert [type(record) for record in found.records] == [ReplayStep, StoredStep, ReplayStep]
    assert equal(found.state, take(tiny).state)


def test_what_a_shared_pass_led_to_is_kept(tiny):
    """Computed again, it might be rounded otherwise."""
    forward = tiny.problem.forward(tiny.state, tiny.window.batches[0], tiny.window.keys[0])
    found = take(tiny, keeps=lambda index: index == 0, forward=forward)
    assert [type(record) for record in found.records] == [StoredStep, StoredStep, ReplayStep]
    assert equal(found.state, take(tiny).state)
