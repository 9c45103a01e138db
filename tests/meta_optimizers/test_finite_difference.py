"""The approximate engine: close to the exact one, by a stated distance."""

import pytest
import torch
from torch.utils import _pytree as pytree

from metaloss.errors import MetalossError
from metaloss.meta_optimizers.finite_difference import FiniteDifference
from metaloss.meta_optimizers.mixed import Mixed


@pytest.mark.parametrize("unroll", [1, 3, 10])
@pytest.mark.parametrize("model", ["norm_dropout", "tied", "attention", "foreign"])
def test_close_to_the_exact_engine(model, unroll, case, distance):
    """In double precision; with masks that were not replayed it would be far off."""
    asked = case(model, "nesterov", unroll)
    got, expected = asked.answer(FiniteDifference(epsilon=1e-4)), asked.answer(Mixed())
    assert distance(got.gradient, expected.gradient) < 1e-5


def test_close_with_every_optimizer(optimizer_name, case, distance):
    asked = case("norm_dropout", optimizer_name, 3)
    got, expected = asked.answer(FiniteDifference(epsilon=1e-4)), asked.answer(Mixed())
    assert distance(got.gradient, expected.gradient) < 1e-5


def test_the_steps_themselves_are_exact(case):
    asked = case("norm_dropout", "adam", 3)
    got, expected = asked.answer(FiniteDifference()), asked.answer(Mixed())
    for a, b in zip(
        pytree.tree_leaves((got.state, got.losses)),
        pytree.tree_leaves((expected.state, expected.losses)),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_the_error_falls_with_the_square_of_epsilon(case, distance):
    asked = case("norm_dropout", "momentum", 3)
    exact = asked.answer(Mixed()).gradient
    coarse, fine = (
        distance(asked.answer(FiniteDifference(epsilon=e)).gradient, exact) for e in (4e-3, 1e-3)
    )
    assert coarse / fine == pytest.approx(16, rel=0.05)


def test_default_epsilon_in_single_precision(case, distance):
    asked = case("norm_dropout", "momentum", 3, dtype=torch.float32)
    got, expected = asked.answer(FiniteDifference()), asked.answer(Mixed())
    assert distance(got.gradient, expected.gradient) < 1e-2


def test_absolute_epsilon_is_the_relative_one_times_the_norm(case, distance):
    """ḡ of one step of plain SGD is −α ∇L_task(θ')."""
    asked = case("norm_dropout", "sgd", 1)
    after = asked.answer(Mixed()).state
    slope, _ = asked.problem.task_gradient(after, asked.window.meta_batch, asked.window.meta_key)
    length = 0.2 * float(torch.stack([value.norm() for value in slope.values()]).norm())
    relative = asked.answer(FiniteDifference(epsilon=0.05))
    absolute = asked.answer(FiniteDifference(epsilon=0.05 / length, relative=False))
    assert distance(absolute.gradient, relative.gradient) < 1e-9
    other = asked.answer(FiniteDifference(epsilon=0.05, relative=False))
    assert distance(other.gradient, relative.gradient) > 1e-6


def test_a_direction_of_zeros_gives_zeros(case):
    """The task loss is flat: nothing to difference, no 0/0."""
    asked = case("mlp", "sgd", 2)
    problem = type(asked.problem)(
        model=asked.problem.model,
        loss=asked.problem.loss,
        task_loss=lambda outputs, targets: (outputs * 0).sum(),
        optimizer=asked.problem.optimizer,
    )
    gradient = asked._replace(problem=problem).answer(FiniteDifference()).gradient
    assert all(torch.equal(value, torch.zeros_like(value)) for value in gradient.values())


def test_it_says_that_it_is_approximate():
    assert FiniteDifference.exact is False
    assert Mixed.exact is True


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan")])
def test_a_bad_epsilon_is_refused(epsilon):
    with pytest.raises(MetalossError, match=r"meta_optimizer.epsilon=.*expected a positive number"):
        FiniteDifference(epsilon=epsilon)
