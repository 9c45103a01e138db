from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaloss.contracts import MetaBatch, Plan, Progress, Schedule, TrainOn
from metaloss.errors import MetalossError
from metaloss.schedules import Offline, Online, Static

STATIC = st.builds(Static, train_on=st.sampled_from(TrainOn), early_stopping=st.integers(0, 5))
OFFLINE = st.builds(Offline, offline_steps=st.integers(1, 40), unroll=st.integers(1, 12))


@st.composite
def onlines(draw):
    unroll = draw(st.integers(1, 9))
    return Online(
        unroll=unroll,
        period=draw(st.none() | st.integers(unroll, 12)),
        meta_batch=draw(st.sampled_from(MetaBatch)),
        freeze_after=draw(st.sampled_from([0.0, 0.3, 0.5, 1.0]) | st.floats(0, 1)),
        offline_steps=draw(st.integers(0, 20)),
        offline_unroll=draw(st.integers(1, 4)),
    )


GROWING = st.builds(Online, unroll=st.integers(1, 4), unroll_end=st.integers(4, 30))
MIXED = st.builds(Online, unroll=st.integers(1, 9), period=st.just(12), between=st.integers(0, 3))
ANY = STATIC | OFFLINE | onlines() | GROWING | MIXED
STEPS = st.integers(1, 120)


def after(plan: Plan, progress: Progress) -> Progress:
    if plan.phase == "offline":
        return replace(progress, offline=progress.offline + 1)
    return replace(progress, train=progress.train + plan.unroll)


def plans(schedule: Schedule, steps: int, progress: Progress | None = None):
    """Return every plan of a run with the progress that it was asked at."""
    found, progress = [], progress or Progress()
    while (plan := schedule.plan(progress, steps)) is not None:
        found.append((progress, plan))
        progress = after(plan, progress)
        assert len(found) <= 1000
    return found


@settings(deadline=None)
@given(schedule=ANY, steps=STEPS)
def test_the_budget_is_exact(schedule, steps):
    found = [plan for _, plan in plans(schedule, steps)]
    assert sum(plan.unroll for plan in found if plan.phase == "train") == steps
    assert sum(plan.phase == "offline" for plan in found) == schedule.offline_total()
    phases = [plan.phase for plan in found]
    assert phases == sorted(phases), "offline comes before train"


@settings(deadline=None)
@given(schedule=ANY, steps=STEPS)
def test_fresh_weights_come_with_every_offline_step_and_once_after_them(schedule, steps):
    for progress, plan in plans(schedule, steps):
        begins = progress.train == 0 and schedule.offline_total() > 0
        assert plan.reset == (plan.phase == "offline" or begins)


@settings(deadline=None)
@given(schedule=ANY, steps=STEPS, data=st.data())
def test_a_run_resumed_anywhere_is_planned_like_the_uninterrupted_one(schedule, steps, data):
    whole = plans(schedule, steps)
    place = data.draw(st.integers(0, len(whole) - 1))
    assert plans(schedule, steps, whole[place][0]) == whole[place:]
    assert plans(schedule, steps) == whole


@settings(deadline=None)
@given(schedule=ANY, steps=STEPS)
def test_what_moves_is_what_was_said_to_move(schedule, steps):
    moved = {plan.phase for _, plan in plans(schedule, steps) if plan.meta_step}
    assert all(schedule.moves_in(phase) for phase in moved)
    assert schedule.learns == (schedule.moves_in("offline") or schedule.moves_in("train"))
    assert schedule.moves_in("offline") == (schedule.offline_total() > 0)


@settings(deadline=None)
@given(schedule=onlines(), steps=STEPS)
def test_online_moves_at_the_end_of_every_period_until_frozen(schedule, steps):
    period = schedule.period or schedule.unroll
    ends = [
        progress.train + plan.unroll
        for progress, plan in plans(schedule, steps)
        if plan.phase == "train" and plan.meta_step
    ]
    expected = [
        end
        for end in range(period, steps + 1, period)
        if end - schedule.unroll < schedule.freeze_after * steps
    ]
    assert ends == expected


def test_an_unroll_grows_in_few_stages_of_equal_length():
    schedule = Online(unroll=2, unroll_end=32)
    found = [(before.train, plan) for before, plan in plans(schedule, 1000) if plan.meta_step]
    begins = {plan.unroll: train for train, plan in reversed(found)}
    assert sorted(begins) == [2, 4, 8, 16, 32]
    assert all(0 <= begin - 200 * k < 32 for k, begin in enumerate(sorted(begins.values())))


def test_the_rest_of_a_period_may_have_shorter_windows():
    found = [
        plan.unroll * plan.meta_step for plan in Online(unroll=4, period=9, between=2).plans(20)
    ]
    assert found == [2, 2, 0, 4, 2, 2, 0, 4, 2]
    found = [plan.unroll for plan in Online(unroll=25, period=50, between=1).plans(100)]
    assert found == 2 * [*25 * [1], 25]


def test_a_short_horizon_weighs_as_much_as_a_long_one():
    assert Online(unroll=25, judge_at=[1, 5]).judged(25) == [(1, 25), (5, 5)]
    assert Online(unroll=25, judge_at=[5], judge_power=0).judged(25) == [(5, 1)]
    growing = Online(unroll_end=25, judge_at=[1, 5])
    assert growing.judged(5) == [(1, 5)]
    assert growing.judged(1) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"judge_at": [1]}, r"judge_at=\[1\] with unroll=1: expected a longer unroll"),
        ({"judge_at": [5], "unroll": 5}, "different inner steps from 1 to 4"),
        ({"judge_at": [0], "unroll": 5}, "different inner steps from 1 to 4"),
        ({"judge_at": [2, 2], "unroll": 5}, "different inner steps from 1 to 4"),
        ({"judge_power": -1.0}, "judge_power=-1.0: expected a number ≥ 0"),
        ({"unroll_end": 2, "unroll": 3}, "unroll_end=2: expected a number ≥ 3"),
        ({"unroll_end": 5, "period": 5}, "unroll_end=5 with period=5: expected no period"),
        ({"between": 1, "unroll": 5}, "between=1 needs a period longer than the unroll"),
        ({"between": 3, "unroll": 5, "period": 7}, "between=3: expected a number from 0 to 2"),
        ({"between": 1, "period": 2, "budget": 2.0}, "budget=2 is not made for schedule.between"),
        ({"unroll_end": 5, "budget": 2.0}, "budget=2 is not made for schedule.unroll_end"),
    ],
)
def test_where_an_unroll_is_judged_and_ends_has_limits(words, message):
    with pytest.raises(MetalossError, match=message):
        Online(**words)


@settings(deadline=None)
@given(schedule=onlines(), steps=STEPS)
def test_online_looks_through_exactly_the_unroll(schedule, steps):
    for _, plan in plans(schedule, steps):
        if plan.phase == "offline":
            assert (plan.unroll, plan.meta_step) == (schedule.offline_unroll, True)
        else:
            assert plan.unroll == (schedule.unroll if plan.meta_step else 1)


def test_online_by_default_moves_after_every_step():
    assert [plan for _, plan in plans(Online(), 3)] == 3 * [Plan(phase="train", meta_step=True)]


def test_a_window_that_the_end_would_cut_is_taken_as_plain_steps():
    lengths = [(plan.unroll, plan.meta_step) for _, plan in plans(Online(unroll=4), 10)]
    assert lengths == [(4, True), (4, True), (1, False), (1, False)]


def test_offline_learns_then_trains_with_a_frozen_loss():
    found = [plan for _, plan in plans(Offline(offline_steps=2, unroll=7), 3)]
    assert found == [
        *2 * [Plan(phase="offline", reset=True, unroll=7, meta_step=True)],
        Plan(phase="train", reset=True),
        *2 * [Plan(phase="train")],
    ]


def test_the_published_defaults():
    assert (Offline().offline_total(), Offline().unroll) == (2500, 10)
    assert (Online().offline_total(), Online().unroll, Online().period) == (0, 1, None)
    assert Online().meta_batch is MetaBatch.validation
    assert not Static().learns


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Offline(offline_steps=0), "schedule.offline_steps=0: expected a number ≥ 1"),
        (lambda: Offline(unroll=0), "schedule.unroll=0: expected a number ≥ 1"),
        (lambda: Offline(meta_batch=MetaBatch.next), "expected validation or train"),
        (lambda: Online(unroll=0), "schedule.unroll=0: expected a number ≥ 1"),
        (lambda: Online(offline_unroll=0), "schedule.offline_unroll=0: expected a number ≥ 1"),
        (lambda: Online(offline_steps=-1), "schedule.offline_steps=-1: expected a number ≥ 0"),
        (lambda: Online(period=2, unroll=3), "period=2 with unroll=3: expected a period ≥ unroll"),
        (lambda: Online(freeze_after=1.5), "schedule.freeze_after=1.5: expected a share from 0"),
        (lambda: Online(freeze_after=float("nan")), "schedule.freeze_after=nan: expected a share"),
        (lambda: Static(early_stopping=-1), "schedule.early_stopping=-1: expected a number ≥ 0"),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(MetalossError, match=message):
        make()
