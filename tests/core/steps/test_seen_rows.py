"""What a loss sees of training rows: memory, progress and rank, by every engine and run."""

from dataclasses import replace

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from metaloss import Learner
from metaloss.contracts import Progress
from metaloss.core.steps import ledger as ledgers
from metaloss.core.steps.stacked import StackedAdvance
from metaloss.core.training.curves import loss_curves
from metaloss.core.training.saved import pack_state, unpack_state
from metaloss.errors import MetalossError
from metaloss.inner.weighted import row_of
from metaloss.losses import MLPLoss
from metaloss.losses.base import LearnedLoss, Weighed
from metaloss.losses.mlp import MLPLossConfig
from metaloss.meta_optimizers.finite_difference import FiniteDifference
from metaloss.meta_optimizers.higher import Higher
from metaloss.meta_optimizers.mixed import Mixed
from metaloss.meta_optimizers.torchopt import TorchOpt
from metaloss.types import Row

from ..plain_autograd_loop import first_state, run
from ..small_setups import blobs, line, net, setup

INPUTS = ["target", "prediction", "memory", "average", "progress", "rank"]
WORDS = ("start=keep", "inner.lr=0.3", "meta_optimizer.rule=sgd", "meta_optimizer.lr=0.5")


def seeing(*words, task=None, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        loss = MLPLoss(MLPLossConfig(hidden=[6], inputs=INPUTS, **options)).double()
    task = task or blobs(dtype=torch.float64)
    return setup("schedule=online", *WORDS, *words, task=task, model=net().double(), loss=loss)


def recalled(parts, steps, total=30):
    """Return the state after some steps, and the next window with what the loss sees."""
    *_, (progress, state) = [pair for pair, _ in zip(run(parts, total), range(steps), strict=False)]
    plan = parts.schedule.plan(progress, total)
    window = parts.advance.window(plan, progress)
    return state, ledgers.recalled(parts.problem, state.ledger, window), progress


def by_hand(parts, state, window):
    """Return the meta-gradient by autograd through a plain loop, with features of their own."""
    phi = {n: v.detach().clone().requires_grad_() for n, v in state.phi.items()}
    theta = {n: v.detach().clone().requires_grad_() for n, v in state.inner.params.items()}
    for batch, rows, share in zip(window.batches, window.rows, window.progress, strict=True):
        labels = row_of_values(batch)
        outputs = functional_call(parts.model, theta, (batch.inputs,))
        one_hot = F.one_hot(labels, 3).double()
        total, wrong, _, visits = state.ledger[rows, :4].T
        features = [
            (total + 1 / 3) / (visits + 1),
            (wrong + 2 / 3) / (visits + 1),
            torch.full((len(rows), 3), 1 / 3).double(),
            share.double().expand(len(rows)),
        ]
        seen = visits > 0
        sums = 1 - 0.9 ** visits[seen].unsqueeze(1)
        features[2][seen] = state.ledger[rows, 4:][seen] / sums
        each = F.cross_entropy(outputs, labels, reduction="none").detach()
        features.append((each.unsqueeze(1) > each).double().sum(1).add(0.5) / len(rows))
        columns = [
            one_hot,
            outputs.softmax(1),
            *(f.view(len(f), -1).expand(-1, 3) for f in features),
        ]
        hidden = F.linear(torch.stack(columns, -1), phi["layers.0.weight"], phi["layers.0.bias"])
        hidden = parts.loss.activation(hidden)
        loss = F.linear(hidden, phi["layers.1.weight"]).mean()
        slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        theta = {n: p - 0.3 * g for (n, p), g in zip(theta.items(), slopes, strict=True)}
    outputs = functional_call(parts.model, theta, (window.meta_batch.inputs,))
    task = F.cross_entropy(outputs, window.meta_batch.targets)
    return dict(zip(phi, torch.autograd.grad(task, list(phi.values())), strict=True))


def row_of_values(batch):
    return batch.targets.values


@pytest.mark.parametrize("unroll", [1, 3])
def test_every_engine_computes_the_gradient_of_a_plain_loop(unroll):
    words = ("inner.momentum=0", f"schedule.unroll={unroll}", "batch_size=32")
    parts = seeing(*words)
    state, window, _ = recalled(parts, 4)
    assert float(state.ledger[:, 3].min()) >= 0
    expected = by_hand(parts, state, window)
    engines = [Mixed(), TorchOpt(), Higher(), FiniteDifference(epsilon=1e-4)]
    for engine in engines:
        found = engine.meta_gradient(parts.problem, state.phi, state.inner, window).gradient
        for name, value in expected.items():
            assert value.abs().max() > 0
            tolerance = 1e-9 if engine.exact else 1e-4 * float(value.abs().max())
            torch.testing.assert_close(found[name], value, rtol=1e-7, atol=tolerance)


def test_the_row_is_what_the_ledger_and_the_step_say():
    parts = seeing("schedule.unroll=2")
    state, window, progress = recalled(parts, 3)
    for index, (batch, rows) in enumerate(zip(window.batches, window.rows, strict=True)):
        row = row_of(batch.targets)
        total, _, _, visits = state.ledger[rows, :4].T
        torch.testing.assert_close(row.memory[:, 0], (total + 1 / 3) / (visits + 1))
        assert torch.equal(row.number, rows)
        expected = (progress.train + index) / parts.config.steps
        torch.testing.assert_close(row.progress, torch.full((8,), expected))


def test_offline_steps_see_rows_that_were_never_visited():
    parts = seeing("schedule.offline_steps=2", "schedule.unroll=2")
    plan = parts.schedule.plan(Progress(), 10)
    assert plan.phase == "offline"
    window = parts.advance.window(plan, Progress(offline=1))
    window = ledgers.recalled(parts.problem, first_state(parts).ledger, window)
    for index, batch in enumerate(window.batches):
        row = row_of(batch.targets)
        torch.testing.assert_close(row.memory[0], torch.tensor([1 / 3, 2 / 3]).double())
        torch.testing.assert_close(row.progress[0], torch.tensor(index / parts.config.steps))


@pytest.mark.parametrize("words", [(), ("schedule.unroll=2",), ("schedule.meta_batch=next",)])
def test_traced_steps_and_members_are_those_of_plain_runs(words):
    parts = [setup_of(seed, *words) for seed in (0, 1)]
    alone = [list(run(one, 12))[-1][1] for one in parts]
    traced = list(run(setup_of(0, *words, "compile=trace"), 12))[-1][1]
    torch.testing.assert_close(traced.phi, alone[0].phi, rtol=1e-4, atol=1e-5)
    advance = StackedAdvance([one.advance for one in parts])
    states, progress = advance.joined([first_state(one) for one in parts]), Progress()
    while (plan := parts[0].schedule.plan(progress, 12)) is not None:
        states, progress = advance(states, plan, progress), progress.after(plan)
    for index, own in enumerate(alone):
        found = advance.member(states, index)
        torch.testing.assert_close(found.phi, own.phi, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.ledger, own.ledger, rtol=1e-4, atol=1e-5)


def setup_of(seed, *words):
    words = ("schedule=online", *WORDS, f"loss.inputs=[{','.join(INPUTS)}]", *words)
    return setup(*words, f"seed={seed}", task=blobs(seed=seed), model=net(seed=seed))


def test_a_state_with_pending_steps_is_packed_with_what_they_have_seen():
    parts = setup_of(0, "schedule.meta_batch=next")
    states = list(run(parts, 9))
    whole = states[-1][1]
    progress, middle = states[4]
    assert middle.pending is not None
    back = unpack_state(pack_state(middle), first_state(parts))
    assert torch.equal(
        row_of(back.pending.steps[0].batch.targets).memory,
        row_of(middle.pending.steps[0].batch.targets).memory,
    )
    resumed = list(run(parts, 9, state=back, progress=progress))[-1][1]
    for name, value in whole.phi.items():
        assert torch.equal(resumed.phi[name], value)


def test_a_run_without_a_ledger_is_refused():
    with pytest.raises(MetalossError, match="ledger=false"):
        setup_of(0, "ledger=false")


def test_a_learner_refuses_what_only_a_run_keeps():
    loss = MLPLoss(MLPLossConfig(inputs=INPUTS))
    with pytest.raises(MetalossError, match="sees average, memory, progress, visits of each"):
        Learner(net(), loss, task_loss=F.cross_entropy)
    loss = MLPLoss(MLPLossConfig(inputs=[*INPUTS[:2], "rank"]))
    batch = torch.randn(8, 4), torch.arange(8) % 3
    losses = Learner(net(), loss, task_loss=F.cross_entropy).step(batch, batch)
    assert bool(losses.taken)


def test_in_regression_the_memory_is_of_squared_errors():
    words = ("schedule=online", "loss.inputs=[target,prediction,memory]")
    parts = setup(*words, task=line(), model=net(outputs=1))
    state, window, _ = recalled(parts, 9)
    memory = row_of(window.batches[0].targets).memory
    total, _, _, visits = state.ledger[window.rows[0]].T
    torch.testing.assert_close(memory[:, 0], 1 / (1 + (total + 1) / (visits + 1)))
    assert memory[:, 1].abs().max() == 0


def test_a_loss_of_rows_has_the_value_of_the_row_that_it_is_given():
    loss = MLPLoss(MLPLossConfig(hidden=[6], inputs=INPUTS))
    outputs, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    unseen = Row(memory=torch.tensor([[1 / 3, 2 / 3]]).expand(5, 2), progress=torch.zeros(5))
    assert torch.equal(loss(outputs, target), loss(outputs, target, row=unseen))
    known = unseen._replace(memory=torch.rand(5, 2))
    assert not torch.equal(loss(outputs, target), loss(outputs, target, row=known))
    ranks = MLPLoss(MLPLossConfig(hidden=[6], inputs=INPUTS[:2] + ["rank"]))
    halves = torch.stack([ranks(outputs[a:b], target[a:b]) * (b - a) for a, b in ((0, 2), (2, 5))])
    assert not torch.isclose(halves.sum() / 5, ranks(outputs, target))


class Later(LearnedLoss):
    """Cross-entropy of the rows that were visited before."""

    sees = frozenset({"visits"})

    def per_row(self, logits, target, row):
        return Weighed(-(target * logits.log_softmax(1)).sum(1), (row.visits > 0).to(logits))


def test_a_loss_may_see_the_visits_without_the_average():
    parts = setup("schedule=static", model=net(), loss=Later())
    first = first_state(parts).inner.params["0.weight"]
    moved = [not torch.equal(state.inner.params["0.weight"], first) for _, state in run(parts, 12)]
    epoch = len(parts.task.train.targets) // parts.config.batch_size
    assert moved == [step > epoch for step in range(1, 13)]
    assert 1 < epoch < 11


def test_curves_are_those_of_the_memory_that_is_asked_for():
    loss = MLPLoss(MLPLossConfig(hidden=[6], inputs=["target", "prediction", "memory"]))
    phi = dict(loss.named_parameters())
    grid, guess = loss_curves(loss, phi)
    _, asked = loss_curves(loss, phi, memory=(0.1, 0.9))
    assert guess == loss_curves(loss, phi, memory=(0.5, 0.5))[1]
    assert asked != guess
    row = Row(memory=torch.tensor([[0.1, 0.9]]))
    value = loss.pointwise(torch.tensor([[grid[30]]]), torch.ones(1, 1), row).item()
    assert asked["t=1"][30] == pytest.approx(value, rel=1e-4, abs=1e-6)
    with pytest.raises(MetalossError, match="expected loss=mlp with memory"):
        loss_curves(MLPLoss(), {}, memory=(0.1, 0.9))


@pytest.mark.parametrize(
    "given", [["prediction", "target"], ["target", "prediction", "rank", "rank"]]
)
def test_inputs_in_a_wrong_order_or_twice_are_refused(given):
    with pytest.raises(MetalossError, match="expected target and prediction, then any of memory"):
        MLPLossConfig(inputs=given)


def test_an_unknown_input_is_refused_with_the_nearest_name():
    with pytest.raises(MetalossError, match="memory"):
        MLPLossConfig(inputs=["target", "prediction", "memry"])
    assert replace(MLPLossConfig(), inputs=INPUTS).inputs == INPUTS
