"""What a moving loss costs is told against a plain step, timed by itself."""

import time
from types import SimpleNamespace

import pytest

from metaloss.core.runs.plain import plain_seconds
from metaloss.core.runs.summary import meta_overhead

from ..plain_autograd_loop import double_setup, first_state


def test_a_plain_step_is_timed_from_where_the_run_is():
    setup = double_setup("schedule=online")
    begin = first_state(setup)
    seen = []

    def advance(state, plan, progress):
        seen.append((state.inner, plan.meta_step))
        time.sleep(0.005)
        return setup.advance(state, plan, progress)

    state = advance(begin, setup.schedule.plan(setup.schedule.begins, 10), setup.schedule.begins)
    seen.clear()
    seconds = plain_seconds(advance, state)
    assert all(inner is state.inner and not meta_step for inner, meta_step in seen)
    assert 0.005 < seconds < 0.5


def test_the_slow_beginning_is_not_timed():
    setup = double_setup("schedule=online")
    calls = []

    def advance(state, plan, progress):
        calls.append(None)
        # The first turn and two of the five that are timed: the median is of the other three.
        time.sleep(0.05 if len(calls) <= 12 else 0)
        return state

    assert plain_seconds(advance, first_state(setup)) < 0.03
    assert len(calls) == 24


@pytest.mark.parametrize(
    ("steps", "plain", "expected"), [(10, 0.1, 3.0), (10, None, None), (0, 0.1, None)]
)
def test_overhead_is_a_step_of_the_run_over_a_plain_one(steps, plain, expected):
    trainer = SimpleNamespace(
        progress=SimpleNamespace(train=steps),
        train_seconds=3.0,
        setup=SimpleNamespace(schedule=SimpleNamespace(learns=True)),
    )
    assert meta_overhead(trainer, plain) == expected
