"""An expression with its coefficients as text, as LaTeX and as Python source.

Text and LaTeX are simplified, and leave out the floor under log and sqrt. The Python source is
exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from metaloss.losses.symbolic.expression import Expression, Token, number
from metaloss.losses.symbolic.operators import FLOOR, OPERATORS

if TYPE_CHECKING:
    import sympy

_DIGITS = 4
# sympy takes seconds to simplify larger expressions.
_LARGEST_SIMPLIFIED = 80


def as_text(
    expression: Expression, coefficients: Sequence[float] | None = None, *, positive: bool = False
) -> str:
    """Return the formula in Python's notation, simplified.

    Args:
        expression: The tree.
        coefficients: One for each edge; see `Expression.evaluate`. None: all 1.
        positive: Whether p and t are never negative, as probabilities are.

    Example:
        >>> from metaloss.losses.symbolic.parse import parse
        >>> as_text(parse("mul(-1, mul(t, log(p)))"), positive=True)
        '-t*log(p)'
        >>> as_text(parse("square(t - p)"), [2.0, 0.5, 1.5])
        '(-3*p + t)**2'
    """
    if expression.size > _LARGEST_SIMPLIFIED:
        return _functional(expression, coefficients)
    import sympy

    return str(sympy.sstr(_as_sympy(expression, coefficients, positive)))


def as_latex(
    expression: Expression, coefficients: Sequence[float] | None = None, *, positive: bool = False
) -> str:
    r"""Return the formula in LaTeX, without dollar signs; see `as_text`.

    Example:
        >>> from metaloss.losses.symbolic.parse import parse
        >>> as_latex(parse("aq(t, p)"))
        '\\frac{t}{\\sqrt{p^{2} + 1}}'
    """
    import sympy

    if expression.size > _LARGEST_SIMPLIFIED:
        return str(sympy.latex(sympy.Symbol(_functional(expression, coefficients))))
    return str(sympy.latex(_as_sympy(expression, coefficients, positive)))


def as_python(expression: Expression, coefficients: Sequence[float] | None = None) -> str:
    """Return the exact expression for torch, in the tensors ``p``, ``t`` and ``one`` (ones).

    Example:
        >>> from metaloss.losses.symbolic.parse import parse
        >>> as_python(parse("square(t - 0.5*p)"), [1.0, 1.0, 2.0, 1.0, 1.0])
        '((t - (2.0 * ((0.5 * one) * p))) ** 2)'
    """

    def combine(index: int, token: Token, arguments: list[str]) -> str:
        if isinstance(token, float):
            # torch's functions need a tensor.
            text = f"({number(token)} * one)"
        elif arguments:
            text = OPERATORS[token].python.format(*arguments)
        else:
            text = token
        factor = _coefficient(coefficients, index)
        return text if factor == 1 else f"({factor!r} * {text})"

    return expression.folded(combine)


def _functional(expression: Expression, coefficients: Sequence[float] | None) -> str:
    def combine(index: int, token: Token, arguments: list[str]) -> str:
        text = number(token) if isinstance(token, float) else token
        text += f"({', '.join(arguments)})" if arguments else ""
        factor = _coefficient(coefficients, index)
        return text if factor == 1 else f"{factor:.{_DIGITS}g}*{text}"

    return expression.folded(combine)


def _coefficient(coefficients: Sequence[float] | None, index: int) -> float:
    return 1.0 if coefficients is None or index == 0 else float(coefficients[index - 1])


def _as_sympy(
    expression: Expression, coefficients: Sequence[float] | None, positive: bool
) -> sympy.Expr:
    """Build the sympy expression from the tree, so that sympy evaluates no text."""
    import sympy

    assumed = {"nonnegative": True} if positive else {"real": True}
    leaves = {name: sympy.Symbol(name, **assumed) for name in ("t", "p")}
    build: dict[str, Callable[..., Any]] = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "aq": lambda a, b: a / sympy.sqrt(1 + b**2),
        "min": lambda a, b: _ordered(a, b, sympy.Min)[0],
        "max": lambda a, b: _ordered(a, b, sympy.Max)[-1],
        "sign": sympy.sign,
        "square": lambda a: a**2,
        "abs": sympy.Abs,
        "log": _log,
        "sqrt": lambda a: sympy.sqrt(sympy.Abs(a)),
        "tanh": sympy.tanh,
    }

    def combine(index: int, token: Token, arguments: list[Any]) -> Any:
        if isinstance(token, float):
            value = _nice(token)
        elif not arguments:
            value = leaves[token]
        elif all(argument.is_number for argument in arguments):
            # With the torch operators, which are defined where sympy's are not, as log(0).
            plain = [torch.tensor(float(a), dtype=torch.float64) for a in arguments]
            value = _nice(OPERATORS[token].apply(*plain).item())
        else:
            value = build[token](*arguments)
        return _nice(_coefficient(coefficients, index)) * value

    result = expression.folded(combine)
    rounded = {one: _nice(float(f"{float(one):.{_DIGITS}g}")) for one in result.atoms(sympy.Float)}
    return result.xreplace(rounded)


def _ordered(a: sympy.Expr, b: sympy.Expr, which: Any) -> list[sympy.Expr]:
    """Return [smaller, larger] if their signs tell, else ``[which(a, b)]``, not evaluated."""
    for small, large in ((a, b), (b, a)):
        if small.is_number and small <= 0 and large.is_nonnegative:
            return [small, large]
    # Not evaluated, because sympy would take long to find out which is larger.
    return [which(a, b, evaluate=False)]


def _log(value: sympy.Expr) -> sympy.Expr:
    import sympy

    size = sympy.Abs(value)
    # The argument may be a number after simplification, as in min(t, 0), and below the floor.
    return sympy.Float(math.log(max(float(size), FLOOR))) if size.is_number else sympy.log(size)


def _nice(value: float) -> sympy.Expr:
    import sympy

    return sympy.Integer(int(value)) if value == int(value) else sympy.Float(value)
