"""The task loss at several places of an unroll: one walk back, the exact gradient of the sum."""

import pytest
import torch
from torch.func import functional_call

from metaloss.inner.problem import InnerProblem
from metaloss.inner.stacked import StackedProblem, member, stack
from metaloss.meta_optimizers.finite_difference import FiniteDifference
from metaloss.meta_optimizers.mixed import Mixed
from metaloss.meta_optimizers.reverse_unroll import Checkpointing
from metaloss.types import MetaPass, MetaPoint, StoredStep

PLACES = {1: 4.0, 3: 0.5}


def with_points(asked, places=PLACES):
    window = asked.window
    points = tuple(
        MetaPoint(after, weight, window.meta_batch, window.meta_key)
        for after, weight in places.items()
    )
    return asked._replace(window=window._replace(points=points))


def cut(asked, after):
    """The same question, whose unroll ends earlier."""
    window = asked.window
    return asked._replace(
        window=window._replace(batches=window.batches[:after], keys=window.keys[:after])
    )


def total(parts):
    """Return the weighted sum of gradients."""
    (first, _), *_ = parts
    return {name: sum(weight * one[name] for one, weight in parts) for name in first}


def by_shorter_unrolls(asked, engine):
    parts = [(cut(asked, after).answer(engine).gradient, w) for after, w in PLACES.items()]
    return total([(asked.answer(engine).gradient, 1.0), *parts])


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "rmsprop_all"])
def test_all_exact_engines_equal_the_sum_of_shorter_unrolls(exact, optimizer, case, distance):
    asked = case("norm_dropout", optimizer, 4)
    expected = by_shorter_unrolls(asked, Mixed())
    found = with_points(asked).answer(exact)
    assert distance(found.gradient, expected) < 1e-9
    alone = asked.answer(exact)
    assert distance(found.gradient, alone.gradient) > 1e-2
    assert found.losses.meta_task == alone.losses.meta_task
    assert all(
        torch.equal(value, alone.state.buffers[name]) for name, value in found.state.buffers.items()
    )


def test_plain_autograd_through_plain_steps(exact, case, distance):
    asked = case("mlp", "sgd", 4)
    phi = {name: value.detach().requires_grad_() for name, value in asked.phi.items()}
    params = {name: p.detach().requires_grad_() for name, p in asked.module.named_parameters()}
    meta, objective = asked.window.meta_batch, 0.0
    for number, batch in enumerate(asked.window.batches, 1):
        outputs = functional_call(asked.module, params, (batch.inputs,))
        loss = functional_call(asked.problem.loss, phi, (outputs, batch.targets))
        slopes = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        params = {n: p - 0.2 * g for (n, p), g in zip(params.items(), slopes, strict=True)}
        outputs = functional_call(asked.module, params, (meta.inputs,))
        weight = {**PLACES, 4: 1.0}.get(number, 0.0)
        objective = objective + weight * asked.problem.task_loss(outputs, meta.targets)
    expected = dict(zip(phi, torch.autograd.grad(objective, list(phi.values())), strict=True))
    assert distance(with_points(asked).answer(exact).gradient, expected) < 1e-9


def test_few_states_give_the_same_to_the_bit(case, distance):
    asked = with_points(case("norm_dropout", "adam", 7))
    few = asked.answer(Mixed(checkpointing=Checkpointing.sqrt)).gradient
    assert distance(few, asked.answer(Mixed()).gradient) == 0


def test_differences_are_close(case, distance):
    asked = with_points(case("norm", "momentum", 4))
    found = asked.answer(FiniteDifference(epsilon=1e-4)).gradient
    assert distance(found, asked.answer(Mixed()).gradient) < 1e-5


def test_members_are_judged_together(case, distance):
    one = case("norm_dropout", "adam", 4)
    scales = (1.0, 0.7)
    phis = [{name: s * value for name, value in one.phi.items()} for s in scales]
    parts = {n: getattr(one.problem, n) for n in ("model", "loss", "task_loss", "optimizer")}
    asked = with_points(
        one._replace(
            problem=StackedProblem(**parts, shares_batches=False),
            phi=stack(phis),
            state=stack([one.state] * 2),
            window=stack([one.window] * 2),
        )
    )
    found = asked.answer(Mixed()).gradient
    for index, phi in enumerate(phis):
        expected = with_points(one._replace(phi=phi)).answer(Mixed()).gradient
        assert distance(member(found, index), expected) < 1e-9


@pytest.mark.parametrize("engine", [Mixed(), Mixed(rows=0.5)], ids=["all rows", "half"])
def test_steps_that_were_taken_before_are_judged_on_their_next_batches(engine, case, distance):
    """As with ``meta_batch=next``: the meta-batch of θ_k is the training batch of step k."""
    asked = case("mlp", "momentum", 4)
    problem, phi, window, state = asked.problem, asked.phi, asked.window, asked.state
    records = []
    for batch, key in zip(window.batches, window.keys, strict=True):
        stepped = problem.step(phi, state, batch, key)
        records.append(StoredStep(state, batch, key, stepped.grads))
        state = stepped.state
    points = tuple(MetaPoint(k, w, records[k].batch, records[k].key) for k, w in PLACES.items())
    parts = []
    for after, weight in {4: 1.0, **PLACES}.items():
        end = state if after == 4 else records[after].state
        batch, key = (
            (window.meta_batch, window.meta_key)
            if after == 4
            else (records[after].batch, records[after].key)
        )
        adjoint, _ = problem.task_gradient(end, batch, key)
        meta_pass = MetaPass(batch, key, adjoint, end.buffers)
        shorter = engine.gradient_back(problem, phi, records[:after], meta_pass)
        parts.append((shorter, weight))
    adjoint, _ = problem.task_gradient(state, window.meta_batch, window.meta_key)
    meta_pass = MetaPass(window.meta_batch, window.meta_key, adjoint, state.buffers, points)
    found = engine.gradient_back(problem, phi, records, meta_pass)
    assert distance(found, total(parts)) < 1e-9


def test_the_earlier_task_losses_see_a_share_of_the_rows_too(exact, case, distance):
    asked = case("mlp", "adam", 4)
    fewer = asked._replace(problem=InnerProblem.of(asked.problem, judge_rows=0.5))
    expected = by_shorter_unrolls(fewer, Mixed())
    assert distance(with_points(fewer).answer(exact).gradient, expected) < 1e-9
