"""φ is pulled to its start: the gradient of a distance between slopes, against plain autograd."""

from dataclasses import replace

import pytest
import torch
from torch.func import functional_call

import metaloss
from metaloss.contracts import Progress
from metaloss.core.steps.anchor import Anchor, pull, slopes_at
from metaloss.core.steps.stacked import StackedAdvance
from metaloss.errors import MetalossError
from metaloss.inner.stacked import member, stack
from metaloss.losses import Scaled
from metaloss.types import Batch

from ..plain_autograd_loop import Hand, double_setup, first_state, run, same
from ..small_setups import train

WEIGHT = 30.0


def distance(loss, phi, anchor):
    """½ E‖∂L_φ/∂z − slopes‖², one row after the other."""
    total = 0.0
    for z, target, slope in zip(*anchor.batch, anchor.slopes, strict=True):
        z = z.detach().requires_grad_()
        value = functional_call(loss, phi, (z.unsqueeze(0), target.unsqueeze(0)))
        (found,) = torch.autograd.grad(value, z, create_graph=True)
        total = total + (found - slope).square().sum() / 2
    return total / len(anchor.slopes)


class Anchored(Hand):
    """The two loops, with the distance from the start."""

    def __init__(self, parts, anchor):
        super().__init__(parts)
        self.anchor = anchor

    def pulls(self):
        z = self.anchor.batch.inputs.detach().requires_grad_()
        values = len(z) * functional_call(self.loss, self.phi, (z, self.anchor.batch.targets))
        (found,) = torch.autograd.grad(values, z, create_graph=True)
        apart = (found - self.anchor.slopes).square().sum(1).mean() / 2
        return [WEIGHT * one for one in torch.autograd.grad(apart, list(self.phi.values()))]


def words(*more):
    return ("schedule=online", f"meta_optimizer.anchor={WEIGHT}", *more)


def test_the_pull_is_the_gradient_of_the_distance():
    parts = double_setup(*words())
    state = parts.anchored(first_state(parts))
    assert torch.equal(state.anchor.batch.inputs, parts.anchored(state).anchor.batch.inputs)
    assert state.anchor.batch.inputs.shape == (64, 3)
    at_start = pull(parts.problem, state.phi, state.anchor)
    assert max(value.abs().max() for value in at_start.values()) < 1e-12
    few = Anchor(Batch(*(one[:6] for one in state.anchor.batch)), state.anchor.slopes[:6])
    phi = {name: (3 * value).requires_grad_() for name, value in state.phi.items()}
    expected = torch.autograd.grad(distance(parts.loss, phi, few), list(phi.values()))
    found = pull(parts.problem, phi, few)
    for name, value in zip(phi, expected, strict=True):
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)
    assert max(value.abs().max() for value in expected) > 1e-3


@pytest.mark.parametrize("more", [(), ("schedule.meta_batch=next",)], ids=["validation", "next"])
def test_online_equals_a_loop_by_hand(more):
    parts = double_setup(*words(*more))
    begun = parts.anchored(first_state(parts))
    hand = Anchored(parts, begun.anchor)
    for k, (_, state) in enumerate(run(parts, 6, begun)):
        if more and k > 0:
            hand.move_phi(hand.streams["train"][k])
        hand.forget()
        hand.step(hand.streams["train"][k])
        if not more:
            hand.move_phi(hand.meta(k))
        same(state, hand)
    free = double_setup("schedule=online", *more)
    *_, (_, other) = run(free, 6)
    assert not torch.equal(other.phi["layers.0.weight"], state.phi["layers.0.weight"])


def test_members_are_pulled_to_their_own_starts():
    members = [double_setup(*words("schedule.unroll=2"), f"seed={seed}") for seed in (0, 1)]
    begun = []
    for scale, one in zip((1.0, 0.8), members, strict=True):
        state = first_state(one)
        phi = {name: scale * value for name, value in state.phi.items()}
        begun.append(one.anchored(state._replace(phi=phi)))
    together = StackedAdvance([one.advance for one in members])
    states, progress = stack(begun), Progress()
    alone = [run(one, 6, state) for one, state in zip(members, begun, strict=True)]
    while plan := members[0].schedule.plan(progress, 6):
        states = together(states, plan, progress)
        progress = progress.after(plan)
        for index, one in enumerate(alone):
            expected, found = next(one)[1].phi, member(states, index).phi
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


def test_a_heavy_anchor_holds_the_loss_also_after_an_offline_phase():
    moved = []
    for weight in (0.0, 2000.0):
        parts = double_setup(*words("schedule.offline_steps=3"), "meta_optimizer.rule=adam")
        engine = replace(parts.engine, anchor=weight, lr=0.01, offline_lr=0.01)
        step = replace(parts.advance.step, engine=engine)
        begun = parts.anchored(first_state(parts))
        parts = replace(parts, advance=replace(parts.advance, step=step))
        *_, (_, state) = run(parts, 20, begun)
        apart = slopes_at(parts.problem, state.phi, begun.anchor.batch) - begun.anchor.slopes
        moved.append(float(apart.norm()))
    assert 0 < moved[1] < 0.5 * moved[0]


def test_what_cannot_be_anchored_is_refused(tmp_path):
    with pytest.raises(MetalossError, match=r"anchor=-1\.0: expected a number ≥ 0"):
        metaloss.Mixed(anchor=-1.0)
    for option in ("anchor", "ema"):
        with pytest.raises(MetalossError, match=rf"{option}=0\.1: only a run .* has one"):
            metaloss.Learner(
                torch.nn.Linear(3, 2),
                Scaled(),
                task_loss=torch.nn.functional.cross_entropy,
                meta_optimizer=metaloss.Mixed(**{option: 0.1}),
            )
    with pytest.raises(MetalossError, match="the slopes of this loss do not depend on its"):
        train(tmp_path / "run", "schedule=online", "loss=row_weights", "meta_optimizer.anchor=1")
    assert not (tmp_path / "run").exists()
