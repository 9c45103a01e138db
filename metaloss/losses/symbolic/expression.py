"""An expression in target t and prediction p, as a value."""

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
    """A tree in prefix order: an operator's name stands before its arguments.

    Numbers, ``"t"`` and ``"p"`` are the leaves. A subtree is a slice of ``tokens``; nothing here
    recurses, so that no expression is too deep to be handled.

    Args:
        tokens: One or more, as many as the operators call for.

    Raises:
        MetalossError: If the tokens are no single expression, or one that is too large.

    Example:
        >>> squared = Expression(("square", "sub", "t", "p"))
        >>> str(squared), squared.size, squared.height
        ('square(sub(t, p))', 4, 2)
        >>> str(squared.replaced(2, Expression((0.5,))))
        'square(sub(0.5, p))'
    """

    tokens: tuple[Token, ...]

    def __post_init__(self) -> None:
        """Check that the tokens are one expression."""
        missing = 1
        for token in self.tokens:
            _check_token(token)
            if missing == 0:
                raise MetalossError(f"the expression is complete before {token!r}")
            missing += _arity(token) - 1
        if missing or not self.tokens:
            raise MetalossError(f"the expression lacks {missing} argument(s) at its end")
        if self.size > LARGEST_SIZE or self.height > LARGEST_HEIGHT:
            raise MetalossError(
                f"the expression has {self.size} nodes and height {self.height}: at most "
                f"{LARGEST_SIZE} and {LARGEST_HEIGHT} are allowed"
            )

    @property
    def size(self) -> int:
        """The number of nodes."""
        return len(self.tokens)

    @property
    def height(self) -> int:
        """The number of edges from the root to the deepest leaf: 0 for a leaf alone."""
        return self.folded(lambda _, token, below: 1 + max(below) if below else 0)

    def end(self, index: int) -> int:
        """Return where the subtree that begins at ``index`` ends: its tokens are a slice."""
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
        """Return what the root comes to: ``combine(index, token, values of the arguments)``."""
        values: list[Value] = []
        for index in range(self.size - 1, -1, -1):
            token = self.tokens[index]
            # Read from the end: the arguments lie on the stack, the first on top.
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
            coefficients: (size − 1,), one for each edge: what the node of token k + 1 hands to its
                parent is multiplied by number k. None: all 1.

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
        """Return the text in functional notation; `parse` reads it back as the same value."""

        def combine(index: int, token: Token, arguments: list[str]) -> str:
            if isinstance(token, float):
                return number(token)
            return f"{token}({', '.join(arguments)})" if arguments else token

        return self.folded(combine)


def number(value: float) -> str:
    """Return a number's shortest text that reads back as the same number."""
    return repr(value).removesuffix(".0")


def _arity(token: Token) -> int:
    return OPERATORS[token].arity if token in OPERATORS else 0  # type: ignore[index]


def _check_token(token: object) -> None:
    if isinstance(token, str):
        if token not in OPERATORS and token not in TERMINALS:
            raise MetalossError(f"{token!r} is no operator and neither t nor p")
    elif not isinstance(token, float):
        raise MetalossError(f"{token!r} is a {type(token).__name__}: numbers are floats here")
    elif not math.isfinite(token) or abs(token) > LARGEST_NUMBER:
        raise MetalossError(f"the number {token} is not within ±{LARGEST_NUMBER:g}")
