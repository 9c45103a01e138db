"""Losses of rows in runs: exact gradients by every engine, compiled and stacked steps, memory."""

import pytest
import torch

from metaloss.contracts import Progress
from metaloss.core.steps import ledger as ledgers
from metaloss.core.steps.stacked import StackedAdvance
from metaloss.meta_optimizers.finite_difference import FiniteDifference
from metaloss.meta_optimizers.higher import Higher
from metaloss.meta_optimizers.mixed import Mixed
from metaloss.meta_optimizers.torchopt import TorchOpt

from .. import interrupted_runs
from ..plain_autograd_loop import first_state, run
from ..same_ending import assert_same_ending
from ..small_setups import blobs, net, setup, train

WORDS = (
    "batch_size=32",
    "schedule=online",
    "schedule.unroll=2",
    "inner.lr=0.1",
    "meta_optimizer.lr=0.01",
)
FAMILIES = [
    ("symmetric",),
    ("bi_tempered",),
    ("balanced_softmax",),
    ("ldam", "loss.scale=3", "loss.drw=0.1"),
    ("mwn", "loss.hidden=5"),
    ("mwn", "loss.hidden=5", "loss.clusters=2", "loss.normalize=true"),
    ("correction", "schedule.train_on=train+validation"),
    ("elr",),
    ("bootstrap", "loss.source=memory"),
    ("soft_targets", "loss.hidden=[4]"),
    ("row_weights",),
]


def made(*words, dtype=torch.float64, seed=0):
    parts = setup(
        *WORDS,
        *words,
        f"seed={seed}",
        task=blobs(seed=seed, dtype=dtype),
        model=net(seed=seed).to(dtype),
    )
    parts.loss.to(dtype)
    return parts


@pytest.mark.parametrize("words", FAMILIES, ids=" ".join)
def test_every_engine_computes_the_same_gradient(words):
    parts = made(f"loss={words[0]}", *words[1:])
    *_, (progress, state) = run(parts, 6)
    plan = parts.schedule.plan(progress, 8)
    window = parts.advance.window(plan, progress)
    window = ledgers.recalled(parts.problem, state.ledger, window)
    gradients = [
        engine.meta_gradient(parts.problem, state.phi, state.inner, window).gradient
        for engine in (TorchOpt(), Higher(), Mixed(), FiniteDifference(epsilon=1e-5))
    ]
    assert any(value.abs().max() > 0 for value in gradients[0].values())
    for found, tolerance in zip(gradients[1:], (1e-8, 1e-8, 1e-4), strict=True):
        for name, value in gradients[0].items():
            atol = tolerance * float(value.abs().max()) + 1e-12
            torch.testing.assert_close(found[name], value, rtol=tolerance, atol=atol)


@pytest.mark.parametrize("words", [("elr",), ("mwn", "loss.hidden=5"), ("ldam", "loss.scale=3")])
def test_traced_steps_and_members_are_those_of_plain_runs(words):
    words = (f"loss={words[0]}", *words[1:], "schedule.unroll=1")
    parts = [made(*words, dtype=torch.float32, seed=seed) for seed in (0, 1)]
    alone = [list(run(one, 10))[-1][1] for one in parts]
    traced = list(run(made(*words, "compile=trace", dtype=torch.float32), 10))[-1][1]
    torch.testing.assert_close(traced.phi, alone[0].phi, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(traced.ledger, alone[0].ledger, rtol=1e-4, atol=1e-5)
    advance = StackedAdvance([one.advance for one in parts])
    states, progress = advance.joined([first_state(one) for one in parts]), Progress()
    while (plan := parts[0].schedule.plan(progress, 10)) is not None:
        states, progress = advance(states, plan, progress), progress.after(plan)
    for index, own in enumerate(alone):
        found = advance.member(states, index)
        torch.testing.assert_close(found.phi, own.phi, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.ledger, own.ledger, rtol=1e-4, atol=1e-5)


def test_the_ledger_holds_the_moving_average_of_predictions():
    parts = made("loss=elr", "loss.decay=0.6", "schedule.unroll=1", "batch_size=64")
    averages = torch.zeros(64, 3, dtype=torch.float64)
    state = first_state(parts)
    for progress, after in run(parts, 5):
        batch, rows = (
            parts.advance.streams["train"][progress.train - 1],
            parts.advance.streams["train"].indices(progress.train - 1),
        )
        outputs = torch.func.functional_call(parts.model, state.inner.params, (batch.inputs,))
        averages[rows] = 0.6 * averages[rows] + 0.4 * outputs.softmax(1).detach()
        state = after
    assert averages.abs().max() > 0
    torch.testing.assert_close(state.ledger[:, 4:], averages)


def test_a_finished_run_exports_its_loss_and_its_suspects(tmp_path):
    words = ("loss=elr", "schedule=online", "steps=12", "inner.lr=0.1")
    result = train(tmp_path / "run", *words)
    assert result.summary.steps == 12
    assert result.loss.strength.item() != 3.0
    assert len(result.suspects(task=blobs())) == 64


@pytest.mark.parametrize(
    "words", [("loss=elr",), ("loss.inputs=[target,prediction,memory,progress]",)]
)
def test_a_resumed_run_ends_like_one_that_was_never_stopped(tmp_path, words):
    words = (*words, "schedule=online", "schedule.meta_batch=next", "batch_size=32")
    interrupted_runs.train(tmp_path / "whole", *words)
    task = interrupted_runs.interrupting(at=1 + 12)
    with pytest.raises(KeyboardInterrupt):
        interrupted_runs.train(tmp_path / "run", *words, task=task)
    interrupted_runs.resume(tmp_path / "run")
    assert_same_ending(tmp_path / "run", tmp_path / "whole")
