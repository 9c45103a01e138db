"""An expression in target t and prediction p."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from metaloss.errors import MetalossError
from metaloss.losses.symbolic.operators import OPERATORS

LARGEST_SIZE = 500
LARGEST_HEIGHT = 50
LARGEST_NUMBER = 1e6
TERMINALS = ("t", "p")

Token = str | float
Value = TypeVar("Value")


@dataclass(frozen=True)
class Expression:
    """A tree in prefix order: an operator's name comes before its arguments.

    The leaves are numbers, ``"t"`` and ``"p"``. A subtree is a slice of ``tokens``. No method is
    recursive, so that the depth is not limited by Python.

    Args:
        tokens: Names of operators, and leaves; as many as the operators need.

    Raises:
        MetalossError: If the tokens are not one expression, or if it is too large.

    Example:
        >>> squared = Expression(("square", "sub", "t", "p"))
        >>> str(squared), squared.size, squared.height
        ('square(sub(t, p))', 4, 2)
        >>> str(squared.replaced(2, Expression((0.5,))))
        'square(sub(0.5, p))'
    """

    tokens: tuple[Token, ...]

    def __post_init__(self) -> None:
        missing = 1
        for token in self.tokens:
            _check_token(token)
            if missing == 0:
                raise MetalossError(f"the expression is complete before {token!r}")
            missing += _arity(token) - 1
        if missing or not self.tokens:
            raise MetalossError(f"{missing} argument(s) are missing at the end of the expression")
        if self.size > LARGEST_SIZE or self.height > LARGEST_HEIGHT:
            raise MetalossError(
                f"the expression has {self.size} nodes and height {self.height}: expected at most "
                f"{LARGEST_SIZE} nodes and height {LARGEST_HEIGHT}"
            )

    @property
    def size(self) -> int:
        """The number of nodes."""
        return len(self.tokens)

    @property
    def height(self) -> int:
        """The number of edges from the root to the deepest leaf; 0 for a single leaf."""
        return self.folded(lambda _, token, below: 1 + max(below) if below else 0)

    def end(self, index: int) -> int:
        """Return the index after the last token of the subtree that begins at ``index``."""
        missing, at = 1, index
        while missing:
            missing += _arity(self.tokens[at]) - 1
            at += 1
        return at

    def subtree(self, index: int) -> Expression:
        """Return the subtree whose root is token ``index``."""
        return Expression(self.tokens[index : self.end(index)])

    def replaced(self, index: int, by: Expression) -> Expression:
        """Return the expression with the subtree at ``index`` replaced."""
        return Expression(self.tokens[:index] + by.tokens + self.tokens[self.end(index) :])

    def folded(self, combine: Callable[[int, Token, list[Value]], Value]) -> Value:
        """Return the root's value; each node's is ``combine(index, token, arguments' values)``."""
        values: list[Value] = []
        for index in range(self.size - 1, -1, -1):
            token = self.tokens[index]
            # Tokens are read from the end, so that the first argument is on top of the stack.
            arguments = [values.pop() for _ in range(_arity(token))]
            values.append(combine(index, token, arguments))
        return values[0]

    def evaluate(
        self, prediction: Tensor, target: Tensor, coefficients: Tensor | None = None
    ) -> Tensor:
        """Return the expression's value, element by element.

        Args:
            prediction: p, any shape.
            target: t, the same shape.
            coefficients: (size − 1,), one for each edge: the value of the node of token k + 1 is
                multiplied by coefficient k. None: all 1.

        Returns:
            The shape of ``prediction``.
        """
        leaves = {"t": target, "p": prediction}

        def combine(index: int, token: Token, arguments: list[Tensor]) -> Tensor:
            if isinstance(token, str):
                value = leaves[token] if token in leaves else OPERATORS[token].apply(*arguments)
            else:
                value = prediction.new_full((), token)
            if coefficients is None or index == 0:
                return value
            return coefficients[index - 1] * value

        return torch.broadcast_to(self.folded(combine), prediction.shape)

    def __str__(self) -> str:
        """Return the text in functional notation, which `parse` reads back."""

        def combine(index: int, token: Token, arguments: list[str]) -> str:
            if isinstance(token, float):
                return number(token)
            return f"{token}({', '.join(arguments)})" if arguments else token

        return self.folded(combine)


def number(value: float) -> str:
    """Return the shortest text of a number that is read back as the same number."""
    return repr(value).removesuffix(".0")


def _arity(token: Token) -> int:
    return OPERATORS[token].arity if token in OPERATORS else 0  # type: ignore[index]


def _check_token(token: object) -> None:
    if isinstance(token, str):
        if token not in OPERATORS and token not in TERMINALS:
            raise MetalossError(f"{token!r} is neither an operator nor t nor p")
    elif not isinstance(token, float):
        raise MetalossError(f"{token!r} is of type {type(token).__name__}: expected str or float")
    elif not math.isfinite(token) or abs(token) > LARGEST_NUMBER:
        raise MetalossError(f"number {token}: expected one within ±{LARGEST_NUMBER:g}")
