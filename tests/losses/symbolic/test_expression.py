"""Expressions as values: subtrees, replacement, limits, evaluation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaloss.errors import MetalossError
from metaloss.losses.symbolic import OPERATORS, Expression, parse

from .trees import EXPRESSIONS


def points(seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(2, 7, 3, generator=draw, dtype=torch.float64)


def by_recursion(expression, p, t):
    """Evaluate as the definition reads, without coefficients."""
    head = expression.tokens[0]
    if head in OPERATORS:
        values, at = [], 1
        for _ in range(OPERATORS[head].arity):
            values.append(by_recursion(expression.subtree(at), p, t))
            at = expression.end(at)
        return OPERATORS[head].apply(*values)
    return {"p": p, "t": t}.get(head, torch.full_like(p, head if isinstance(head, float) else 0))


@settings(max_examples=200, deadline=None)
@given(EXPRESSIONS)
def test_evaluation_equals_the_recursive_definition(expression):
    p, t = points()
    found = expression.evaluate(p, t)
    assert found.shape == p.shape
    torch.testing.assert_close(found, by_recursion(expression, p, t), equal_nan=True)


@settings(max_examples=100, deadline=None)
@given(EXPRESSIONS)
def test_coefficients_of_one_change_nothing(expression):
    p, t = points()
    ones = torch.ones(expression.size - 1, dtype=torch.float64)
    torch.testing.assert_close(
        expression.evaluate(p, t, ones), expression.evaluate(p, t), rtol=0, atol=0, equal_nan=True
    )


def test_a_coefficient_stands_on_each_edge():
    p, t = points()
    c = torch.tensor([2.0, 3.0, 5.0, 7.0, 11.0, 13.0], dtype=torch.float64)
    # Tokens: add, mul, t, p, square, sub(…)… in prefix order; edge k lies above token k + 1.
    expression = parse("add(mul(t, p), square(tanh(p)))")
    found = expression.evaluate(p, t, c)
    inner = 13 * p
    expected = 2 * ((3 * t) * (5 * p)) + 7 * (11 * torch.tanh(inner)) ** 2
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@settings(max_examples=200, deadline=None)
@given(EXPRESSIONS, EXPRESSIONS, st.data())
def test_replacing_a_subtree_and_taking_it_out_again(expression, other, data):
    index = data.draw(st.integers(0, expression.size - 1))
    assert expression.replaced(index, expression.subtree(index)) == expression
    changed = expression.replaced(index, other)
    assert changed.subtree(index) == other
    assert changed.size == expression.size - expression.subtree(index).size + other.size


def test_height_counts_edges():
    assert parse("p").height == 0
    assert parse("square(sub(t, p))").height == 2
    assert parse("add(t, square(square(p)))").height == 3


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ((), r"1 argument\(s\) are missing"),
        (("add", "t"), r"1 argument\(s\) are missing"),
        (("t", "p"), "complete before 'p'"),
        (("exec", "t"), "'exec' is neither an operator"),
        ((1,), "is of type int: expected str or float"),
        ((True,), "is of type bool: expected str or float"),
        ((float("nan"),), "expected one within"),
        ((1e7,), "expected one within"),
        (("square",) * 60 + ("p",), "expected at most 500 nodes"),
        (("add", "t") * 300 + ("p",), "expected at most 500 nodes"),
    ],
)
def test_tokens_that_are_no_expression_are_refused(tokens, message):
    with pytest.raises(MetalossError, match=message):
        Expression(tokens)
