"""Moving averages of θ and φ against a plain loop; that no step depends on them; who gets them."""

import json

import pytest
import torch
from torch import nn

import metaloss
from metaloss.contracts import Plan, Progress
from metaloss.core.steps.averages import Decays
from metaloss.core.steps.stacked import StackedAdvance
from metaloss.core.training.evaluate import outputs_of
from metaloss.errors import MetalossError
from metaloss.inner.model.functional import FunctionalModel
from metaloss.inner.stacked import member
from metaloss.losses.export import load_loss
from metaloss.types import InnerState

from ..plain_autograd_loop import double_setup, first_state, run
from ..small_setups import blobs, fast, net, setup, train

EMA = ("ema=0.8", "meta_optimizer.ema=0.6")


def decay(wanted, count):
    return min(wanted, (1 + count) / (10 + count))


@pytest.mark.parametrize(
    ("words", "compiled"),
    [((), "off"), (("schedule.period=5", "schedule.unroll=3"), "trace")],
    ids=str,
)
def test_they_are_what_a_plain_loop_computes(words, compiled):
    parts = double_setup("schedule=online", *words, *EMA, f"compile={compiled}")
    assert parts.advance.step.plain.decays == Decays(0.8, 0.6)
    begun = first_state(parts)
    theta, phi, done, moved, before = begun.inner.params, begun.phi, 0, 0, begun.phi
    for progress, state in run(parts, 20, state=begun):
        d = decay(0.8, done) ** (progress.train - done)
        theta = {n: d * theta[n] + (1 - d) * p for n, p in state.inner.params.items()}
        if any(not torch.equal(before[n], v) for n, v in state.phi.items()):
            d, moved = decay(0.6, moved), moved + 1
            phi = {n: d * phi[n] + (1 - d) * v for n, v in state.phi.items()}
        done, before = progress.train, state.phi
        torch.testing.assert_close(state.averages.params, theta, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(state.averages.phi, phi, rtol=1e-12, atol=1e-12)
    assert moved == int(state.averages.meta_steps) >= 4
    assert int(state.averages.steps) == 20
    gap = max((theta[n] - p).abs().max() for n, p in state.inner.params.items())
    assert gap > 1e-4


def test_the_average_of_weights_begins_anew_with_them():
    parts = double_setup("schedule=online", *EMA)
    *_, (progress, before) = run(parts, 4)
    plan = Plan(phase="train", reset=True, meta_step=True)
    begun = parts.advance.begun(before, plan, progress)
    torch.testing.assert_close(begun.averages.params, begun.inner.params, rtol=0, atol=0)
    assert int(begun.averages.steps) == 0
    after = parts.advance(before, plan, progress).averages
    torch.testing.assert_close(begun.averages.phi, before.averages.phi, rtol=0, atol=0)
    assert int(after.meta_steps) == 5


def test_each_member_has_its_own():
    words = ("schedule=online", "schedule.meta_batch=next", *EMA)
    alone = [setup(*words, f"seed={seed}") for seed in (0, 1)]
    together = StackedAdvance([parts.advance for parts in alone])
    states = together.joined([first_state(parts) for parts in alone])
    runs = [run(parts, 6) for parts in alone]
    plans = alone[0].schedule.plans(6)
    for plan, ((progress, one), (_, other)) in zip(plans, zip(*runs, strict=True), strict=True):
        before = progress.__class__(train=progress.train - plan.unroll)
        states = together(states, plan, before)
        for index, expected in enumerate((one, other)):
            found = member(states, index).averages
            torch.testing.assert_close(found, expected.averages, rtol=1e-4, atol=1e-5)


def refused(parts, state, progress):
    plan = parts.schedule.plan(progress, 9)
    window = parts.advance.window(plan, progress)
    batch = window.batches[0]
    bad = batch._replace(inputs=torch.full_like(batch.inputs, torch.inf))
    meta = bad if window.meta_batch is batch else window.meta_batch
    return parts.advance.step(state, window._replace(batches=(bad,), meta_batch=meta), plan)


def test_a_refused_step_leaves_them():
    parts = double_setup("schedule=online", *EMA)
    *_, (progress, state) = run(parts, 3)
    after = refused(parts, state, progress)
    assert int(after.guard.bad) == 1
    assert int(after.averages.steps) == 3
    torch.testing.assert_close(after.averages, state.averages, rtol=0, atol=0)


@pytest.mark.parametrize("compiled", ["off", "trace"])
def test_a_refused_step_has_no_meta_step_later(compiled):
    words = ("schedule=online", "schedule.meta_batch=next", f"compile={compiled}")
    parts = double_setup(*words, *EMA)
    *_, (progress, state) = run(parts, 3)
    state = refused(parts, state, progress)
    progress = Progress(train=4)
    after = parts.advance(state, parts.schedule.plan(progress, 9), progress)
    assert int(after.averages.steps) == int(state.averages.steps) + 1
    assert int(after.averages.meta_steps) == int(state.averages.meta_steps)
    torch.testing.assert_close(after.averages.phi, state.averages.phi, rtol=0, atol=0)


def numbers(run):
    return [
        {name: value for name, value in row.items() if "ema" not in name and "time" not in name}
        for row in run.journal()
    ]


def test_a_run_ends_with_them_and_is_otherwise_the_same(tmp_path):
    words = ("schedule=online", "steps=40")
    model = net(nn.BatchNorm1d(5))
    plain = train(tmp_path / "plain", *words, model=model)
    run = train(tmp_path / "ema", *words, *EMA, model=model)
    assert numbers(run) == numbers(plain)
    last = run.journal()[-1]
    assert run.summary.ended_with == {"step": 40, "weights": "average"}
    assert plain.summary.ended_with is None
    for split in ("valid", "test"):
        rows = getattr(blobs(), split)
        model = FunctionalModel(run.model)
        outputs = outputs_of(model, InnerState(*model.state(), None), rows.inputs)
        error = blobs().metric(outputs, rows.targets).item()
        assert run.summary.metrics[f"{split}/error"] == error == last[f"ema_{split}/error"]
    for name, value in run.model.state_dict().items():
        if name not in ("0.bias", "1.num_batches_tracked"):  # a bias before batch norm stays
            assert not torch.equal(value, plain.model.state_dict()[name])
    for one, other in zip(run.loss.parameters(), plain.loss.parameters(), strict=True):
        assert not torch.equal(one, other)
    written = load_loss(tmp_path / "ema")
    torch.testing.assert_close(written.state_dict(), run.loss.state_dict())


def test_the_best_weights_may_be_either(tmp_path):
    words = ("schedule=static", "loss=cross_entropy", "inner.lr=1.5", "steps=60", "eval_every=5")
    run = train(tmp_path, *words, "ema=0.9")
    rows = [row for row in run.journal() if "valid/error" in row]
    every = [(row[name], row["step"], i) for row in rows for i, name in enumerate(NAMES)]
    value, step, kind = min(every)
    best = run.summary.metrics_at_best_validation
    assert (best["valid/error"], best["step"]) == (value, step)
    assert best["weights"] == ("current", "average")[kind]
    loaded = metaloss.load_run(tmp_path, model=net(), best=True)
    model = FunctionalModel(loaded.model)
    outputs = outputs_of(model, InnerState(*model.state(), None), blobs().valid.inputs)
    assert blobs().metric(outputs, blobs().valid.targets).item() == value
    assert (value, step, kind) < (rows[-1]["ema_valid/error"], rows[-1]["step"], 1)


NAMES = ("valid/error", "ema_valid/error")


@pytest.mark.parametrize("option", ["ema", "meta_optimizer.ema"])
@pytest.mark.parametrize("value", ["1", "-0.1"])
def test_a_decay_out_of_range_is_refused(option, value):
    with pytest.raises(MetalossError, match=rf"{option}={value}.*: expected a number in \[0, 1\)"):
        metaloss.train(fast(f"{option}={value}", "schedule=online"))


def test_summaries_of_runs_without_them_do_not_change(tmp_path):
    run = train(tmp_path, "schedule=static", "loss=cross_entropy", "steps=2")
    written = json.loads((run.folder / "summary.json").read_text())
    assert "ended_with" not in written
    assert "weights" not in written["metrics_at_best_validation"]
