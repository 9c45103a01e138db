"""Every operator against finite differences, and finite where it has a kink."""

import math

import pytest
import torch

from metaloss.inner.forward_mode import jvp
from metaloss.losses.symbolic.operators import FLOOR, OPERATORS

EVERY = sorted(OPERATORS)
# No argument near 0 and no two near each other: away from the kinks.
AWAY = ([-2.0, -0.7, 0.4, 1.3], [0.9, -1.6, 2.2, -0.3])
KINKS = [-1.0, -FLOOR, -0.0, 0.0, FLOOR, 1.0]
BY_HAND = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "aq": lambda a, b: a / math.sqrt(1 + b**2),
    "min": min,
    "max": max,
    "sign": lambda a: (a > 0) - (a < 0),
    "square": lambda a: a**2,
    "abs": abs,
    "log": lambda a: math.log(max(abs(a), FLOOR)),
    "sqrt": lambda a: math.sqrt(max(abs(a), FLOOR)),
    "tanh": math.tanh,
}


def arguments(name, values=AWAY):
    columns = values[: OPERATORS[name].arity]
    return [torch.tensor(column, dtype=torch.float64, requires_grad=True) for column in columns]


def at_kinks(name, dtype=torch.float64):
    points = torch.tensor(KINKS, dtype=dtype)
    grid = torch.cartesian_prod(*[points] * OPERATORS[name].arity)
    return [column.clone().requires_grad_() for column in grid.reshape(len(grid), -1).T]


def slopes(name, points):
    out = OPERATORS[name].apply(*points)
    first = torch.autograd.grad(out.sum(), points, create_graph=True, materialize_grads=True)
    second = []
    for slope in first:
        if slope.requires_grad:
            second += torch.autograd.grad(
                slope.sum(), points, retain_graph=True, materialize_grads=True
            )
    return out, first, second


@pytest.mark.parametrize("name", EVERY)
def test_the_value_is_the_definition(name):
    points = arguments(name)
    expected = [
        float(BY_HAND[name](*row)) for row in zip(*(p.tolist() for p in points), strict=True)
    ]
    found = OPERATORS[name].apply(*points)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert found.abs().min() > 0


@pytest.mark.parametrize("name", EVERY)
def test_first_derivatives_equal_finite_differences(name):
    points = arguments(name)
    assert torch.autograd.gradcheck(OPERATORS[name].apply, points)
    _, first, _ = slopes(name, points)
    assert (torch.stack(first).abs().max() > 0) == (name != "sign")


@pytest.mark.parametrize("name", EVERY)
def test_second_derivatives_equal_finite_differences(name):
    assert torch.autograd.gradgradcheck(
        lambda *points: OPERATORS[name].apply(*points), arguments(name)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", EVERY)
def test_values_and_derivatives_are_finite_on_the_kinks(name, dtype):
    points = at_kinks(name, dtype)
    out, first, second = slopes(name, points)
    for value in (out, *first, *second):
        assert value.isfinite().all()
    assert len(out) == len(KINKS) ** OPERATORS[name].arity


@pytest.mark.parametrize("name", EVERY)
def test_forward_mode_equals_reverse_mode_on_the_kinks_too(name):
    points = at_kinks(name)
    push = [torch.full_like(point, 0.3 + k) for k, point in enumerate(points)]
    _, forward = jvp(OPERATORS[name].apply, tuple(points), tuple(push))
    _, first, _ = slopes(name, points)
    expected = sum(slope * move for slope, move in zip(first, push, strict=True))
    torch.testing.assert_close(forward, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_the_python_text_is_the_operator(name):
    points = [p.detach() for p in at_kinks(name)]
    text = OPERATORS[name].python.format("a", "b")
    found = eval(text, {"torch": torch, "a": points[0], "b": points[-1]})  # our own text
    torch.testing.assert_close(found, OPERATORS[name].apply(*points), rtol=1e-14, atol=0)
