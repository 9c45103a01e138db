"""Meta-gradients from a share of the rows: their mean is the exact one."""

from functools import partial
from itertools import product

import pytest
import torch
from torch import nn

import metaloss
from metaloss.compose import compose
from metaloss.core.compilation.program import Compiled
from metaloss.errors import MetalossError
from metaloss.inner import problem as inner_problem
from metaloss.inner import stacked
from metaloss.inner.keys import key_tensor, sampled_rows
from metaloss.inner.problem import Tangents
from metaloss.inner.stacked import StackedProblem, member, stack
from metaloss.inner.steps import take_steps
from metaloss.losses import MLPLoss
from metaloss.losses.mlp import MLPLossConfig
from metaloss.losses.of_rows.class_margins import LDAM, LDAMConfig
from metaloss.losses.of_rows.meta_weight import MetaWeight, MetaWeightConfig
from metaloss.meta_optimizers.finite_difference import FiniteDifference
from metaloss.meta_optimizers.fitting import fitted
from metaloss.meta_optimizers.mixed import Mixed
from metaloss.meta_optimizers.reverse_unroll import Checkpointing
from metaloss.types import MetaPass

from .conftest import CLASSES, FEATURES, ROWS

QUARTERS = [range(first, first + 2) for first in range(0, ROWS, 2)]
ROWWISE = ["mlp", "tied", "partial", "attention", "dropout"]


def with_dropout():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Linear(FEATURES, 6), nn.Dropout(0.3), nn.Tanh(), nn.Linear(6, CLASSES)
    return nn.Sequential(*layers)


@pytest.fixture
def asked(case):
    def ask(model, optimizer, unroll):
        chosen = with_dropout() if model == "dropout" else model
        return case(chosen, optimizer, unroll)

    return ask


def from_blocks(asked, engine, blocks, monkeypatch):
    """Return the gradient where step k looks at the rows of block k."""
    numbers = {
        int(key): torch.tensor(block) for key, block in zip(asked.window.keys, blocks, strict=True)
    }
    for place in (inner_problem, stacked):
        monkeypatch.setattr(place, "sampled_rows", lambda key, share, total: numbers[int(key)])
    return asked.answer(engine).gradient


def mean_of(gradients):
    return {n: torch.stack([one[n] for one in gradients]).mean(0) for n in gradients[0]}


@pytest.mark.parametrize("tangents", [Tangents.forward, Tangents.reverse])
@pytest.mark.parametrize("model", ROWWISE)
def test_the_mean_over_quarters_is_the_exact_gradient(
    model, tangents, asked, distance, monkeypatch
):
    one = asked(model, "adam", 1)
    one = one._replace(problem=inner_problem.InnerProblem.of(one.problem, tangents=tangents))
    exact = one.answer(Mixed()).gradient
    parts = [from_blocks(one, Mixed(rows=0.25), [q], monkeypatch) for q in QUARTERS]
    assert distance(mean_of(parts), exact) < 1e-9
    assert all(distance(part, exact) > 1e-2 for part in parts)


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [*((model, "sgd") for model in ROWWISE), ("dropout", "adam"), ("mlp", "rmsprop_all")],
)
def test_the_mean_over_pairs_of_quarters_is_exact_for_two_steps(
    model, optimizer, asked, distance, monkeypatch
):
    """With Adam as well: a step's update is differentiated at the gradient of all rows."""
    one = asked(model, optimizer, 2)
    exact = one.answer(Mixed()).gradient
    every = [
        from_blocks(one, Mixed(rows=0.25), pair, monkeypatch)
        for pair in product(QUARTERS, repeat=2)
    ]
    assert distance(mean_of(every), exact) < 1e-9


def test_differences_take_a_share_as_well(asked, distance, monkeypatch):
    one = asked("dropout", "sgd", 1)
    exact = one.answer(Mixed()).gradient
    engine = FiniteDifference(rows=0.25, epsilon=1e-4)
    parts = [from_blocks(one, engine, [q], monkeypatch) for q in QUARTERS]
    assert distance(mean_of(parts), exact) < 1e-6


def test_targets_that_do_not_count_leave_the_mean_exact(asked, distance, monkeypatch):
    one = asked("mlp", "sgd", 1)
    (batch,) = one.window.batches
    targets = batch.targets.clone()
    targets[[0, 2, 3]] = -100  # one quarter has none that counts
    one = one._replace(window=one.window._replace(batches=(batch._replace(targets=targets),)))
    exact = one.answer(Mixed()).gradient
    parts = [from_blocks(one, Mixed(rows=0.25), [q], monkeypatch) for q in QUARTERS]
    assert distance(mean_of(parts), exact) < 1e-9
    assert distance(parts[1], exact) > 1e-2


@pytest.mark.parametrize("model", ["norm", "norm_dropout", "cnn"])
def test_all_rows_in_another_order_are_the_exact_gradient(model, asked, distance, monkeypatch):
    """With batch norm as well, whose moments and derivatives are those of all rows."""
    one = asked(model, "momentum", 3)
    exact = one.answer(Mixed()).gradient
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0)).tolist()
    found = from_blocks(one, Mixed(rows=0.5), [order] * 3, monkeypatch)
    assert distance(found, exact) < 1e-7  # the moments are read from running ones


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("model", ["norm_dropout", "cnn"])
def test_batch_norm_normalises_a_sample_by_the_whole_batch(model, momentum, asked):
    one = asked(model, "sgd", 1)
    for part in one.problem.model.module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = momentum
    batch, key, (params, buffers, _) = one.window.batches[0], one.window.keys[0], one.state
    outputs, after = one.problem.predict(params, buffers, batch, key)
    step = inner_problem.StoredStep(one.state, batch, key, {})
    sample = one.problem.sampled(step, after, 0.5)
    found, _ = one.problem.predict(params, buffers, batch, key, sample)
    torch.testing.assert_close(found, outputs[sample.rows], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shares", [True, False])
def test_many_members_are_each_of_them_alone(shares, asked, distance):
    one = asked("norm_dropout", "adam", 3)
    engine, scales = Mixed(rows=0.25), (1.0, 0.7, 1.3)
    phis = [{name: s * value for name, value in one.phi.items()} for s in scales]
    parts = {n: getattr(one.problem, n) for n in ("model", "loss", "task_loss", "optimizer")}
    together = one._replace(
        problem=StackedProblem(**parts, shares_batches=shares),
        phi=stack(phis),
        state=stack([one.state] * 3),
        window=one.window if shares else stack([one.window] * 3),
    )
    found = together.answer(engine).gradient
    for index, phi in enumerate(phis):
        alone = one._replace(phi=phi).answer(engine).gradient
        assert distance(member(found, index), alone) < 1e-9


@pytest.mark.parametrize("checkpointing", Checkpointing)
def test_steps_with_a_later_meta_step_have_the_same_rows(checkpointing, asked, distance):
    one, engine = asked("norm_dropout", "adam", 5), Mixed(rows=0.25, checkpointing=checkpointing)
    window, problem = one.window, one.problem
    keeps = partial(engine.keeps, unroll=5)
    state, records, *_ = take_steps(problem, one.phi, one.state, window.steps, keeps)
    adjoint, _ = problem.task_gradient(state, window.meta_batch, window.meta_key)
    meta_pass = MetaPass(window.meta_batch, window.meta_key, adjoint, state.buffers)
    later = engine.gradient_back(problem, one.phi, records, meta_pass)
    assert distance(later, one.answer(engine).gradient) == 0
    assert distance(later, one.answer(Mixed(rows=0.25)).gradient) == 0


@pytest.mark.parametrize("unroll", [1, 3])
def test_a_traced_step_is_the_eager_one(unroll, asked, distance):
    one, engine = asked("norm_dropout", "adam", unroll), Mixed(rows=0.25)
    eager = one.answer(engine).gradient
    traced = Compiled(
        lambda phi, state, window: engine.meta_gradient(one.problem, phi, state, window),
        compiles=False,
    )
    assert distance(traced(one.phi, one.state, one.window).gradient, eager) < 1e-9


def test_rows_are_drawn_anew_by_every_key_and_each_alike():
    drawn = [
        sampled_rows(key_tensor(0, "dropout/train", k, device="cpu"), 0.25, 10) for k in range(400)
    ]
    assert all(len(rows) == 2 and len(set(rows.tolist())) == 2 for rows in drawn)
    counts = torch.cat(drawn).bincount(minlength=10)
    # 80 of each are expected, with a standard deviation of 8.
    assert counts.sum() == 800
    assert 48 < counts.min() <= counts.max() < 112


def test_a_learner_takes_a_share(case):
    torch.manual_seed(0)
    model, loss = with_dropout(), metaloss.MLPLoss()
    rows = torch.randn(16, FEATURES), torch.randint(CLASSES, (16,))
    learner = metaloss.Learner(
        model, loss, task_loss=nn.functional.cross_entropy, meta_optimizer=Mixed(rows=0.25)
    )
    before = [value.clone() for value in loss.parameters()]
    assert learner.step(rows, rows).taken
    assert any(not torch.equal(a, b) for a, b in zip(before, loss.parameters(), strict=True))


@pytest.mark.parametrize("model", ["shared", "foreign"])
def test_a_model_that_looks_across_rows_is_refused(model, asked):
    one = asked(model, "sgd", 1)
    with pytest.raises(MetalossError, match=r"meta_optimizer.rows=0.25.*: use rows=1"):
        fitted(one.problem, Mixed(rows=0.25), one.phi, one.state, one.window)
    fitted(one.problem, Mixed(), one.phi, one.state, one.window)


class Worst(nn.Module):
    """A loss that is not a mean over rows."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, outputs, targets):
        return self.scale * nn.functional.cross_entropy(outputs, targets, reduction="none").max()


def test_a_loss_that_is_no_mean_over_rows_is_refused(asked):
    one = asked("mlp", "sgd", 1)
    problem = inner_problem.InnerProblem.of(one.problem, loss=Worst())
    phi = {"scale": torch.ones((), dtype=torch.float64)}
    with pytest.raises(MetalossError, match="not a mean over the rows"):
        fitted(problem, Mixed(rows=0.25), phi, one.state, one.window)


@pytest.mark.parametrize("name", ["ldam", "mwn", "rank"])
def test_a_loss_of_rows_that_looks_across_them_is_refused(asked, name):
    one = asked("mlp", "sgd", 1)
    loss = {
        # Its weights are divided by their sum only late in training.
        "ldam": lambda: LDAM(LDAMConfig(counts=[50.0, 5.0, 1.0])),
        "mwn": lambda: MetaWeight(MetaWeightConfig(normalize=True)),
        "rank": lambda: MLPLoss(MLPLossConfig(inputs=["target", "prediction", "rank"])),
    }[name]().double()
    problem = inner_problem.InnerProblem.of(one.problem, loss=loss)
    phi = dict(loss.named_parameters())
    with pytest.raises(MetalossError, match="not a mean over the rows"):
        fitted(problem, Mixed(rows=0.25), phi, one.state, one.window)


@pytest.mark.parametrize("value", ["0", "1.5", "-1", "nan"])
def test_other_shares_are_refused(value):
    with pytest.raises(MetalossError, match=r"rows=.*: expected a number in \(0, 1\]"):
        compose([f"meta_optimizer.rows={value}"])
