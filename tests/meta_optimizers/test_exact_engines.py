"""Every exact engine returns the number that autograd returns through the whole unroll."""

import pytest
import torch
from torch.utils import _pytree as pytree

from metaloss.types import InnerState, MetaGradient, StepLosses

from .leaves import tensors_of


def unrolled(case) -> MetaGradient:
    """The slow path, written out: one graph through all steps."""
    problem, (params, buffers, optimizer), window = case.problem, case.state, case.window
    phi = {name: value.clone().requires_grad_() for name, value in case.phi.items()}
    params = {name: value.clone().requires_grad_() for name, value in params.items()}
    learned, task = [], []
    for batch, key in zip(window.batches, window.keys, strict=True):
        outputs, buffers = problem.model(params, buffers, batch.inputs, key=key)
        loss = torch.func.functional_call(problem.loss, phi, (outputs, batch.targets))
        learned.append(loss)
        task.append(problem.task_loss(outputs, batch.targets))
        grads = torch.autograd.grad(loss, params.values(), create_graph=True, allow_unused=True)
        # As in torch.optim, what has no gradient is left alone.
        reached = {n: g for n, g in zip(params, grads, strict=True) if g is not None}
        params, optimizer = problem.optimizer.update(reached, optimizer, params)
    outputs, _ = problem.model(params, buffers, window.meta_batch.inputs, key=window.meta_key)
    meta_task = problem.task_loss(outputs, window.meta_batch.targets)
    values = torch.autograd.grad(meta_task, phi.values())
    losses = StepLosses(torch.stack(learned), torch.stack(task), meta_task)
    return MetaGradient(
        dict(zip(phi, values, strict=True)), InnerState(params, buffers, optimizer), losses
    )


@pytest.fixture(scope="session")
def expected_of():
    """The slow path's answers, computed once for the three engines."""
    answers: dict[tuple, MetaGradient] = {}

    def expected(case, *asked):
        if asked not in answers:
            answers[asked] = unrolled(case(*asked))
        return answers[asked]

    return expected


def assert_same(got: MetaGradient, expected: MetaGradient, distance) -> None:
    assert distance(got.gradient, expected.gradient) < 1e-9
    assert distance(got.state.params, expected.state.params) < 1e-12
    state, reference = (
        pytree.tree_flatten((r.state.buffers, r.state.optimizer)) for r in (got, expected)
    )
    assert state[1] == reference[1], "the trees differ"
    for a, b in zip(state[0], reference[0], strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b.detach(), rtol=1e-9, atol=1e-13)
    for a, b in zip(got.losses, expected.losses, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("unroll", [1, 3, 10])
def test_equals_autograd_with_every_optimizer(
    exact, optimizer_name, unroll, case, distance, expected_of
):
    asked = "norm_dropout", optimizer_name, unroll
    assert_same(case(*asked).answer(exact), expected_of(case, *asked), distance)


@pytest.mark.parametrize("unroll", [1, 3, 10])
@pytest.mark.parametrize("optimizer", ["nesterov", "adam"])
def test_equals_autograd_with_every_model(
    exact, model_name, optimizer, unroll, case, distance, expected_of
):
    asked = model_name, optimizer, unroll
    assert_same(case(*asked).answer(exact), expected_of(case, *asked), distance)


def test_state_of_the_optimizer_is_carried_on(exact, optimizer_name, case, distance):
    """Two windows in a row: momentum and step counters enter with their values."""
    asked = case("norm_dropout", optimizer_name, 3)
    first = asked.answer(exact)
    second = asked._replace(state=first.state)
    assert_same(second.answer(exact), unrolled(second), distance)
    fresh = asked.problem.optimizer.init(first.state.params)
    forgotten = asked._replace(state=first.state._replace(optimizer=fresh))
    if optimizer_name != "sgd":  # which has nothing to remember
        assert distance(forgotten.answer(exact).gradient, second.answer(exact).gradient) > 1e-4


def test_the_zero_feature_moves_no_weight_and_spoils_no_gradient(exact, optimizer_name, case):
    """√v at zero: the first layer's column for a feature that is always zero."""
    asked = case("mlp", optimizer_name, 3)
    result = asked.answer(exact)
    before, after = (state.params["0.weight"][:, 2] for state in (asked.state, result.state))
    assert all(torch.isfinite(value).all() for value in result.gradient.values())
    if optimizer_name in ("sgd", "momentum", "dampening", "adam", "rmsprop"):  # no weight decay
        assert torch.equal(before, after)


def test_answers_are_repeated_bit_for_bit(exact, case):
    asked = case("norm_dropout", "adam", 3)
    first, second = (tensors_of(asked.answer(exact)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_dropout_masks_follow_the_keys(exact, case, distance):
    asked = case("norm_dropout", "sgd", 2)
    window = asked.window
    for other in (
        window._replace(keys=window.keys[::-1]),
        window._replace(meta_key=window.meta_key + 1),
    ):
        moved = asked._replace(window=other).answer(exact).gradient
        assert distance(moved, asked.answer(exact).gradient) > 1e-3


def test_a_loss_that_depends_on_nothing_moves_nothing(exact, case):
    """The model's outputs are cut off from θ: zeros, not an error."""

    class Cut(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(6, 3))

        def forward(self, x):
            return x @ self.weight.detach()

    result = case(Cut(), "sgd", 2).answer(exact)
    assert all(not value.any() for value in result.gradient.values())
    assert torch.equal(result.state.params["weight"], torch.ones(6, 3, dtype=torch.float64))


def test_single_precision_agrees_to_single_precision(exact, case, distance):
    single = case("norm_dropout", "adam", 3, dtype=torch.float32)
    result = single.answer(exact)
    assert all(value.dtype == torch.float32 for value in result.gradient.values())
    double = unrolled(case("norm_dropout", "adam", 3)).gradient
    assert distance({n: v.double() for n, v in result.gradient.items()}, double) < 2e-3
