"""One segment of a run against loops written by hand, in float64."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from metaloss.types import Batch

from ..plain_autograd_loop import Hand, double_setup, first_state, run, same
from ..small_setups import net, setup


@pytest.mark.parametrize(("unroll", "period"), [(1, 1), (1, 4), (3, 3), (3, 5)])
@pytest.mark.parametrize("meta_batch", ["validation", "train"])
def test_online_equals_a_loop_by_hand(unroll, period, meta_batch):
    parts = double_setup(
        "schedule=online",
        f"schedule.unroll={unroll}",
        f"schedule.period={period}",
        f"schedule.meta_batch={meta_batch}",
    )
    steps = 22
    *_, (_, state) = run(parts, steps)
    hand = Hand(parts)
    rows = parts.task.valid if meta_batch == "validation" else parts.task.train
    for first in range(0, steps, period):
        plain = period - unroll
        for k in range(first, min(first + period, steps)):
            if k == first + plain:
                hand.forget()
            hand.step(hand.streams["train"][k])
        if first + period <= steps:
            meta = hand.streams["meta/train"][first + plain]
            assert all(any(torch.equal(row, one) for one in rows.inputs) for row in meta.inputs)
            hand.move_phi(meta)
    same(state, hand)


def test_online_with_the_next_batch_as_meta_batch_equals_a_loop_by_hand():
    parts = double_setup("schedule=online", "schedule.meta_batch=next")
    hand = Hand(parts)
    for k, (_, state) in enumerate(run(parts, 12)):
        batch = hand.streams["train"][k]
        if k > 0:
            # First the meta-step of the step before, on the batch of this one.
            hand.move_phi(batch)
        hand.forget()
        hand.step(batch)
        same(state, hand)
    # The last step waits for a meta-batch that never comes.
    assert state.pending is not None


@pytest.mark.parametrize("meta_batch", ["validation", "next"])
def test_earlier_task_losses_of_a_window_equal_a_loop_by_hand(meta_batch):
    """T(θ_4) + 2² T(θ_2), also while the unroll grows from 2 to 4."""
    parts = double_setup(
        "schedule=online",
        "schedule.unroll=2",
        "schedule.unroll_end=4",
        "schedule.judge_at=[2]",
        "schedule.judge_power=2",
        f"schedule.meta_batch={meta_batch}",
    )
    hand, begun, waiting, last = Hand(parts), 0, None, meta_batch == "next"
    lengths = []
    for progress, state in run(parts, 23):
        unroll = progress.train - begun
        if waiting is not None:
            hand.move_phi(hand.streams["train"][begun], waiting)
        hand.forget()
        earlier = 0.0
        for k in range(unroll):
            if k == 2:
                judge = hand.streams["train"][begun + 2] if last else hand.meta(begun)
                earlier = (unroll / 2) ** 2 * hand.task_loss(judge)
            hand.step(hand.streams["train"][begun + k])
        if last:
            waiting = earlier if unroll > 1 else None
        elif unroll > 1:
            hand.move_phi(hand.meta(begun), earlier)
        same(state, hand)
        begun = progress.train
        lengths.append(unroll)
    assert lengths == [2] * 4 + [3] * 3 + [4, 1, 1]


def test_adam_on_phi_is_torchs():
    parts = double_setup("schedule=online", "meta_optimizer.rule=adam", "meta_optimizer.lr=0.01")
    *_, (_, state) = run(parts, 8)
    hand = Hand(parts)
    hand.outer = torch.optim.Adam(list(hand.phi.values()), lr=0.01)
    for k in range(8):
        hand.forget()
        hand.step(hand.streams["train"][k])
        hand.move_phi(hand.streams["meta/train"][k])
    # torchopt corrects its bias in float32.
    same(state, hand, rtol=1e-4)


def test_offline_equals_a_loop_by_hand():
    parts = double_setup("schedule=offline", "schedule.offline_steps=5", "schedule.unroll=2")
    hand = Hand(parts)
    for number, (progress, state) in enumerate(run(parts, 4)):
        if progress.train == 0:
            hand.theta, hand.momentum = hand.weights(parts.advance.fresh("offline", number))
            hand.step(hand.streams["offline"][2 * number])
            hand.step(hand.streams["offline"][2 * number + 1])
            hand.move_phi(hand.streams["meta/offline"][number])
        else:
            if progress.train == 1:
                hand.theta, hand.momentum = hand.weights(parts.advance.fresh("train", 0))
            hand.forget()
            hand.step(hand.streams["train"][progress.train - 1])
        same(state, hand)


def test_every_offline_meta_step_begins_with_other_weights():
    parts = double_setup("schedule=offline", "schedule.offline_steps=5")
    starts = [parts.advance.fresh("offline", number).params["0.weight"] for number in (0, 1, 0)]
    assert torch.equal(starts[0], starts[2])
    assert not torch.equal(starts[0], starts[1])
    assert torch.equal(parts.advance.fresh("train", 0).params["0.weight"], parts.model[0].weight)


def test_the_offline_phase_moves_phi_with_every_meta_batch():
    for meta_batch in ("validation", "train", "next"):
        parts = double_setup(
            "schedule=online", "schedule.offline_steps=3", f"schedule.meta_batch={meta_batch}"
        )
        before = first_state(parts).phi["layers.0.weight"]
        for progress, state in run(parts, 1):
            if progress.train == 0:
                assert not torch.equal(state.phi["layers.0.weight"], before), meta_batch
                before = state.phi["layers.0.weight"]


def test_static_equals_torchs_own_loop():
    parts = double_setup("schedule=static")
    *_, (_, state) = run(parts, 15)
    module, streams = net().double(), parts.advance.streams
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3, momentum=0.5)
    for k in range(15):
        batch = streams["train"][k]
        optimizer.zero_grad()
        parts.loss(module(batch.inputs), batch.targets).backward()
        optimizer.step()
    for name, value in module.named_parameters():
        torch.testing.assert_close(state.inner.params[name], value.detach())
    assert all(torch.equal(state.phi[n], p) for n, p in parts.loss.named_parameters())


def test_a_frozen_loss_stays():
    parts = double_setup("schedule=online", "schedule.freeze_after=0.5")
    phis = [state.phi["layers.0.weight"] for _, state in run(parts, 10)]
    assert not torch.equal(phis[3], phis[4])
    assert all(torch.equal(phi, phis[4]) for phi in phis[5:])


def test_the_meta_learning_rate_falls_over_the_meta_steps_that_are_taken():
    words = ("schedule=online", "schedule.period=5", "schedule.freeze_after=0.5", "steps=40")
    parts = double_setup(*words, "meta_optimizer.lr_schedule=linear")
    assert parts.advance.step.meta_totals == {"offline": 0, "train": 4}
    *_, (_, state) = run(parts, 40)
    assert int(state.rule.taken) == 4


def test_the_meter_holds_what_was_seen():
    parts = double_setup("schedule=online", "schedule.unroll=2", "schedule.period=3")
    hand_inner, hand_task = [], []
    *_, (_, state) = run(parts, 6)
    hand = Hand(parts)
    for first in (0, 3):
        for k in range(first, first + 3):
            if k == first + 1:
                hand.forget()
            batch = hand.streams["train"][k]
            with torch.no_grad():
                outputs = functional_call(hand.net, hand.theta, (batch.inputs,))
                hand_inner.append(functional_call(hand.loss, hand.phi, (outputs, batch.targets)))
                hand_task.append(F.cross_entropy(outputs, batch.targets))
            hand.step(batch)
        hand.move_phi(hand.streams["meta/train"][first + 1])
    torch.testing.assert_close(state.meter.counts, torch.tensor([6.0, 6.0, 2.0, 2.0]))
    torch.testing.assert_close(state.meter.sums[0], torch.stack(hand_inner).sum().float())
    torch.testing.assert_close(state.meter.sums[1], torch.stack(hand_task).sum().float())


def test_batch_norm_and_dropout_run_in_train_mode():
    parts = setup("schedule=online", model=_random_net())
    states = [state for _, state in run(parts, 3)]
    counts = [int(state.inner.buffers["1.num_batches_tracked"]) for state in states]
    assert counts == [1, 2, 3], "the task loss's forward pass leaves no trace"
    batch = Batch(torch.ones(4, 4), torch.zeros(4).long())
    keys = [parts.advance.key("train", number) for number in (0, 1, 0)]
    inner = states[-1].inner
    outputs = [parts.problem.predict(inner.params, inner.buffers, batch, key)[0] for key in keys]
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], outputs[1])


def _random_net():
    return net(nn.BatchNorm1d(5), nn.Dropout(0.3))


def test_the_next_batch_is_seen_once_for_both_its_step_and_the_meta_step():
    passes = []

    class Counted(nn.Module):
        """A layer that counts its forward passes, where no model would look for it."""

        def forward(self, x):
            passes.append(1)
            return x

    words = ("schedule=online", "schedule.meta_batch=next", "meta_optimizer=mixed")
    parts = setup(*words, model=net(Counted()))
    states = run(parts, 4)
    next(states)
    counts = []
    for _ in states:
        counts.append(len(passes))
        passes.clear()
    # One for the step and the meta-step, one in forward mode through the step before.
    assert counts[1:] == [2, 2]


@pytest.mark.parametrize("engine", ["torchopt", "higher"])
@pytest.mark.parametrize(("unroll", "period"), [(1, 1), (1, 3), (3, 3), (2, 5)])
def test_every_engine_agrees_on_the_next_batch(engine, unroll, period):
    words = ("schedule=online", "schedule.meta_batch=next", f"schedule.unroll={unroll}")
    words = (*words, f"schedule.period={period}")
    states = []
    for name in ("mixed", engine):
        *_, (_, state) = run(double_setup(*words, f"meta_optimizer={name}"), 11)
        states.append(state)
    for name, value in states[1].phi.items():
        assert not torch.equal(value, first_state(double_setup(*words)).phi[name])
        torch.testing.assert_close(states[0].phi[name], value, rtol=1e-9, atol=1e-12)
