"""The ledger of training rows against slow loops over the outputs of a plain training loop."""

from dataclasses import replace

import pytest
import torch
from torch.func import functional_call

from metaloss.core.steps import ledger as ledgers
from metaloss.core.steps.stacked import StackedAdvance
from metaloss.core.training.saved import pack_state, unpack_state
from metaloss.types import Batch

from ..plain_autograd_loop import Hand, double_setup, first_state, run
from ..small_setups import blobs, line, net, setup

SCHEDULES = [
    ("schedule=static",),
    ("schedule=online",),
    ("schedule=online", "schedule.unroll=3", "schedule.period=5"),
    ("schedule=online", "meta_optimizer=torchopt"),
    ("schedule=online", "meta_optimizer=higher"),
    ("schedule=online", "guard=off"),
]


def last_ledger(parts, steps, **given):
    *_, (_, state) = run(parts, steps, **given)
    return state.ledger


def rows_of(task, batch):
    """Return the numbers of a batch's rows, found by their inputs."""
    return [int((task.train.inputs == one).all(1).nonzero()) for one in batch.inputs]


@pytest.mark.parametrize("words", SCHEDULES, ids=" ".join)
def test_it_is_what_a_slow_loop_counts(words):
    parts = double_setup(*words)
    steps, task, hand = 20, parts.task, Hand(parts)
    expected = [[0.0, 0, 0.0, 0] for _ in task.train.inputs]
    schedule = parts.schedule
    unroll = getattr(schedule, "unroll", 1)
    period = getattr(schedule, "period", None) or unroll
    learns = schedule.learns
    for step in range(steps):
        place = step % period
        if learns and place == period - unroll:
            hand.forget()
        batch = hand.streams["train"][step]
        with torch.no_grad():
            shares = functional_call(hand.net, hand.theta, (batch.inputs,)).softmax(1)
        for row, share, label in zip(rows_of(task, batch), shares, batch.targets, strict=True):
            total, wrong, _, visits = expected[row]
            p = float(share[label])
            missed = any(float(other) > p for other in share)
            expected[row] = [total + p, wrong + missed, p, visits + 1]
        hand.step(batch)
        if learns and place == period - 1:
            hand.move_phi(hand.streams["meta/train"][step - unroll + 1])
        elif not learns:
            hand.forget()
    found = last_ledger(parts, steps)
    assert found.dtype == torch.float64
    assert sum(one[3] for one in expected) == 8 * steps
    assert 0 < sum(one[1] for one in expected) < 8 * steps
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_waiting_for_the_next_batch_notes_every_step_once():
    parts = double_setup("schedule=online", "schedule.meta_batch=next")
    seen = [0] * 64
    for step in range(20):
        for row in rows_of(parts.task, parts.advance.streams["train"][step]):
            seen[row] += 1
    assert last_ledger(parts, 20)[:, 3].tolist() == seen


def test_a_row_twice_in_one_window_is_noted_twice_in_order():
    words = ("schedule=online", "schedule.unroll=3", "batch_size=64")
    parts = double_setup(*words)  # every batch has all rows
    found = last_ledger(parts, 3)
    assert found[:, 3].tolist() == [3.0] * 64
    first = last_ledger(double_setup("schedule=static", "batch_size=64", "steps=1"), 1)
    assert not torch.equal(found[:, 2], first[:, 2])
    assert bool((found[:, 0] > found[:, 2]).any())
    assert bool((found[:, 0] < 3).all())


def test_rows_without_a_label_that_counts_are_left_out():
    task = blobs()
    targets = task.train.targets.clone()
    targets[::5] = task.ignore_index
    task = replace(task, train=Batch(task.train.inputs, targets))
    visits = last_ledger(setup("schedule=online", task=task), 16)[:, 3]
    assert visits[::5].tolist() == [0.0] * 13
    assert int(visits.sum()) == 2 * (64 - 13)


def test_offline_steps_are_not_noted():
    parts = setup("schedule=online", "schedule.offline_steps=3", "schedule.unroll=2")
    for progress, state in run(parts, 4):
        assert int(state.ledger[:, 3].sum()) == 8 * progress.train


def test_streamed_rows_have_the_same_ledger():
    found = [
        last_ledger(setup("schedule=online", task=replace(blobs(), stream=stream)), 20)
        for stream in (False, True)
    ]
    assert int(found[0][:, 3].sum()) == 160
    assert torch.equal(*found)


def test_members_with_different_numbers_of_rows_have_the_ledgers_that_they_would_have_alone():
    def parts(seed):
        task = blobs(seed=seed)
        kept = Batch(*(value[: 64 - 3 * seed] for value in task.train))
        return setup("schedule=online", task=replace(task, train=kept), model=net(seed=seed))

    members = [parts(seed) for seed in (0, 1)]
    advance = StackedAdvance([one.advance for one in members])
    states = advance.joined([first_state(one) for one in members])
    for progress, _ in run(members[0], 20):
        before = replace(progress, train=progress.train - 1)
        states = advance(states, members[0].schedule.plan(before, 20), before)
    for index, one in enumerate(members):
        alone, own = last_ledger(parts(index), 20), advance.member(states, index).ledger
        assert len(own) == len(one.task.train.targets) == 64 - 3 * index
        torch.testing.assert_close(own, alone, rtol=1e-4, atol=1e-5)


def test_without_it_training_is_the_same_and_nothing_is_kept():
    *_, (_, kept) = run(setup("schedule=online"), 10)
    *_, (_, bare) = run(setup("schedule=online", "ledger=false"), 10)
    assert kept.ledger is not None
    assert bare.ledger is None
    for name, value in kept.inner.params.items():
        assert torch.equal(value, bare.inner.params[name])


def test_a_state_of_an_older_version_goes_on_without_it():
    parts = setup("schedule=online")
    content = pack_state(first_state(parts))
    del content["ledger"]
    state = unpack_state(content, first_state(parts))
    assert state.ledger is None
    assert last_ledger(parts, 4, state=state) is None


def test_notes_on_positions_are_means_over_those_that_count():
    draw = torch.Generator().manual_seed(0)
    outputs = torch.randn(6, 4, 5, generator=draw)
    labels = torch.randint(4, (6, 5), generator=draw)
    labels[0, 1:] = -100
    labels[1] = -100
    expected = []
    for row, own in zip(outputs, labels, strict=True):
        places = [place for place in range(5) if own[place] != -100]
        shares = [float(row[:, p].softmax(0)[own[p]]) for p in places]
        wrong = [float(row[:, p].argmax() != own[p]) for p in places]
        count = max(len(places), 1)
        expected.append([sum(shares) / count, sum(wrong) / count, float(len(places) > 0)])
    found = ledgers.note_classes(outputs, labels, -100)
    torch.testing.assert_close(found, torch.tensor(expected))
    soft = torch.eye(4)[labels.clamp(min=0)].movedim(-1, 1) * 0.8 + 0.05
    hard = ledgers.note_classes(outputs, labels.clamp(min=0), -100)
    assert torch.equal(ledgers.note_classes(outputs, soft, -100), hard)


def test_notes_on_yes_and_no_and_on_values():
    outputs, targets = torch.tensor([[0.0, 2.0], [-1.0, 3.0]]), torch.tensor([[1.0, 0.0], [0, 1]])
    found = ledgers.note_binary(outputs, targets)
    s = outputs.sigmoid()
    expected = torch.stack([(s[0, 0] + 1 - s[0, 1]) / 2, (1 - s[1, 0] + s[1, 1]) / 2])
    torch.testing.assert_close(found[:, 0], expected)
    assert found[:, 1].tolist() == [1.0, 0.0]
    errors = ledgers.note_values(outputs, targets)
    assert errors[:, 0].tolist() == [(1 + 4) / 2, (1 + 4) / 2]


def test_regression_keeps_the_squared_error():
    parts = setup("schedule=static", "loss=mse", task=line(), model=net(outputs=1))
    state = first_state(parts)
    batch = parts.advance.streams["train"][0]
    outputs = functional_call(parts.model, state.inner.params, (batch.inputs,))
    found = last_ledger(parts, 1)[parts.advance.streams["train"].indices(0)]
    torch.testing.assert_close(found[:, 0], (outputs - batch.targets)[:, 0].square())
    assert found[:, 3].tolist() == [1.0] * 8
