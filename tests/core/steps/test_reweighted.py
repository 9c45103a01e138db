"""Learning to reweight examples, against its algorithm written by hand."""

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

import metaloss
from metaloss.core.steps.stacked import StackedAdvance
from metaloss.errors import MetalossError
from metaloss.inner.stacked import member, stack
from metaloss.losses.of_rows.row_weights import RowWeights, RowWeightsConfig
from metaloss.meta_optimizers.engine import Rule

from ..plain_autograd_loop import first_state, run
from ..small_setups import blobs, net, setup, train

WORDS = ("schedule=online", "meta_optimizer.rule=l2rw", "inner.lr=0.3", "start=keep")


def parts(*words):
    loss = RowWeights(RowWeightsConfig(rows=64, linear=True)).double()
    task = blobs(dtype=torch.float64)
    return setup(*WORDS, *words, task=task, model=net().double(), loss=loss)


def by_hand(made, steps):
    """Ren et al., algorithm 1: yields θ and the weights of the batch after each step."""
    theta = dict(made.advance.fresh("train", 0).params)
    streams = made.advance.streams

    def slope(theta, inputs, targets):
        leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
        loss = F.cross_entropy(functional_call(made.model, leaves, (inputs,)), targets)
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))

    for k in range(steps):
        batch, judge = streams["train"][k], streams["meta/train"][k]
        each = [slope(theta, x[None], t[None]) for x, t in zip(*batch, strict=True)]
        aim = slope(theta, *judge)
        useful = [max(0.0, float(sum((g[n] * aim[n]).sum() for n in g))) for g in each]
        weights = [value / (sum(useful) or 1.0) for value in useful]
        for weight, slopes in zip(weights, each, strict=True):
            theta = {name: theta[name] - 0.3 * weight * slopes[name] for name in theta}
        yield theta, dict(zip(streams["train"].indices(k).tolist(), weights, strict=True))


@pytest.mark.parametrize("engine", ["mixed", "higher"])
def test_a_run_follows_the_published_algorithm(engine):
    made = parts(f"meta_optimizer={engine}")
    seen = 0
    for (_, state), (theta, weights) in zip(run(made, 4), by_hand(made, 4), strict=True):
        for name, value in theta.items():
            torch.testing.assert_close(state.inner.params[name], value, rtol=1e-9, atol=1e-12)
        expected = torch.zeros(64, dtype=torch.float64)
        expected[list(weights)] = torch.tensor(list(weights.values()), dtype=torch.float64)
        torch.testing.assert_close(state.phi["weights"], expected, rtol=1e-9, atol=1e-12)
        assert float(expected.sum()) == pytest.approx(1)
        seen += int((expected == 0).sum() > 56) + int((expected > 0).sum() > 1)
    assert seen > 4, "some rows have no weight, and some have"


def test_many_seeds_and_a_traced_step_are_weighed_alike():
    members = [parts(f"seed={seed}", "compile=trace") for seed in (0, 1)]
    together = StackedAdvance([one.advance for one in members])
    states, progress = stack([first_state(one) for one in members]), members[0].schedule.begins
    plain = [run(parts(f"seed={seed}"), 3) for seed in (0, 1)]
    while plan := members[0].schedule.plan(progress, 3):
        states, progress = together(states, plan, progress), progress.after(plan)
        for index, one in enumerate(plain):
            expected, found = next(one)[1], member(states, index)
            torch.testing.assert_close(found.phi, expected.phi, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(
                found.inner.params, expected.inner.params, rtol=1e-9, atol=1e-12
            )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("loss=row_weights",), "need each other"),
        (("loss=row_weights", "loss.linear=true", "meta_optimizer.rule=adam"), "need each other"),
        (("loss=row_weights", "loss.linear=true", "schedule.unroll=2"), "at every step"),
        (("loss=row_weights", "loss.linear=true", "schedule.freeze_after=0.5"), "at every step"),
        (("loss=row_weights", "loss.linear=true", "schedule.meta_batch=next"), "at every step"),
        (("loss=row_weights", "loss.linear=true", "schedule.train_on=validation"), "at every step"),
        (("loss=row_weights", "loss.linear=true", "meta_optimizer.rows=0.5"), "expected 1.0"),
        (("loss=row_weights", "loss.linear=true", "meta_optimizer.clip=1"), "clip=1.0 with rule"),
        (("loss=row_weights", "loss.linear=true", "meta_optimizer.lr=1"), "lr=1.0 has no effect"),
        (("loss=row_weights", "loss.linear=true", "meta_optimizer.ema=0.9"), "ema=0.9 with rule"),
        (("loss=row_weights", "loss.linear=true", "meta_optimizer.anchor=1"), "anchor=1.0 with"),
        (
            (
                *("loss=row_weights", "loss.linear=true"),
                *("schedule.jury=0.5", "schedule.verdict=freeze"),
            ),
            "verdict=freeze with rule=l2rw: expected choose",
        ),
    ],
)
def test_what_does_not_fit_is_refused(words, message, tmp_path):
    with pytest.raises(MetalossError, match=message):
        train(tmp_path / "run", *WORDS, *words)
    assert not (tmp_path / "run").exists()


def test_the_weights_of_single_batches_are_not_recorded(tmp_path):
    train(tmp_path, *WORDS, "loss=row_weights", "loss.linear=true", "steps=2")
    assert not (tmp_path / "loss_schedule.safetensors").exists()


def test_a_learner_refuses_it():
    with pytest.raises(MetalossError, match="a Learner does not know which row is which"):
        metaloss.Learner(
            net(),
            metaloss.MLPLoss(),
            task_loss=F.cross_entropy,
            meta_optimizer=metaloss.Mixed(rule=Rule.l2rw),
        )
