"""A parser for expressions of the allowed operators.

::

    sum     = product (("+" | "-") product)*
    product = factor ("*" factor)*
    factor  = "-" factor | atom (("^" | "**") "2")?
    atom    = number | "t" | "p" | name "(" sum ("," sum)? ")" | "(" sum ")"

The text is split into words, and these are parsed into a tree. Nothing is evaluated.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from metaloss.errors import MetalossError, unknown_name
from metaloss.losses.symbolic.expression import (
    LARGEST_HEIGHT,
    LARGEST_NUMBER,
    LARGEST_SIZE,
    TERMINALS,
    Expression,
    Token,
)
from metaloss.losses.symbolic.operators import OPERATORS

LONGEST_TEXT = 20_000
_WORD = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<mark>\*\*|[-+*^/(),]))",
    re.ASCII,
)
_BLANK = " \t\n\r\f\v"
_INFIX = {"+": "add", "-": "sub"}
# More than the allowed height, and far below Python's recursion limit (four frames a level).
_DEEPEST = 2 * LARGEST_HEIGHT


class _Word(NamedTuple):
    kind: str
    text: str
    column: int


def parse(text: str) -> Expression:
    """Read an expression in functional or infix notation, or in a mixture of both.

    Args:
        text: Such as ``square(sub(t, p))``, ``(t - p)^2`` or ``-t * log(p)``. `OPERATORS` has the
            operators; ``^2`` means ``square``; the only division is ``aq``.

    Raises:
        MetalossError: If the text is not an expression, with the column (from 1); if it is too long
            or nested too deeply.

    Example:
        >>> str(parse("-t * log(p) + 0.5*(t - p)^2"))
        'add(mul(mul(-1, t), log(p)), mul(0.5, square(sub(t, p))))'
        >>> parse("square(t - q)")
        Traceback (most recent call last):
        metaloss.errors.MetalossError: expression, column 12: unknown name 'q': ...
    """
    if len(text) > LONGEST_TEXT:
        raise MetalossError(
            f"expression has {len(text)} characters: expected at most {LONGEST_TEXT}"
        )
    reader = _Reader(_words(text))
    tokens = reader.sum()
    left = reader.peek()
    if left.kind != "end":
        raise reader.refusal(left, "expected an operator or the end")
    try:
        return Expression(tuple(tokens))
    except MetalossError as error:
        raise MetalossError(f"expression: {error}") from error


class _Reader:
    """A recursive descent parser. The methods of the grammar return tokens in prefix order."""

    def __init__(self, words: list[_Word]) -> None:
        self._words, self._at, self._depth = words, 0, 0

    def peek(self) -> _Word:
        return self._words[self._at]

    def take(self, *texts: str) -> _Word | None:
        """Return the next word and go past it if it is one of these marks; else return None."""
        word = self.peek()
        if word.kind != "mark" or word.text not in texts:
            return None
        self._at += 1
        return word

    def refusal(self, word: _Word, why: str) -> MetalossError:
        got = "the end of the text" if word.kind == "end" else repr(word.text[:30])
        return MetalossError(f"expression, column {word.column}: got {got}, {why}")

    def sum(self) -> list[Token]:
        left = self.product()
        while sign := self.take("+", "-"):
            left = self._joined(_INFIX[sign.text], left, self.product())
        return left

    def product(self) -> list[Token]:
        left = self.factor()
        while mark := self.take("*", "/"):
            if mark.text == "/":
                raise self.refusal(
                    mark, "but there is no division: use aq(a, b) = a / sqrt(1 + b^2), or a factor"
                )
            left = self._joined("mul", left, self.factor())
        return left

    def factor(self) -> list[Token]:
        if minus := self.take("-"):
            self._enter(minus)
            is_number = self.peek().kind == "number"
            operand = self.factor()
            self._depth -= 1
            if is_number and len(operand) == 1:
                return [-float(operand[0])]
            return ["mul", -1.0, *operand]
        base = self.atom()
        power = self.take("^", "**")
        if power is None:
            return base
        exponent = self.peek()
        if exponent.kind != "number" or float(exponent.text) != 2:
            raise self.refusal(exponent, "expected 2, the only allowed power")
        self._at += 1
        return ["square", *base]

    def atom(self) -> list[Token]:
        word = self.peek()
        if word.kind == "number":
            self._at += 1
            if not float(word.text) <= LARGEST_NUMBER:
                raise self.refusal(word, f"expected a number up to {LARGEST_NUMBER:g}")
            return [float(word.text)]
        if word.kind == "name":
            self._at += 1
            return [word.text] if word.text in TERMINALS else self._call(word)
        if opening := self.take("("):
            self._enter(opening)
            inside = self.sum()
            self._close()
            return inside
        raise self.refusal(word, "expected a number, t, p, a function or '('")

    def _call(self, name: _Word) -> list[Token]:
        if name.text not in OPERATORS:
            error = unknown_name("name", name.text[:30], (*TERMINALS, *OPERATORS))
            raise MetalossError(f"expression, column {name.column}: {error}")
        arity = OPERATORS[name.text].arity
        opening = self.take("(")
        if opening is None:
            raise self.refusal(self.peek(), f"expected '(' after {name.text}")
        self._enter(opening)
        tokens: list[Token] = [name.text, *self.sum()]
        for _ in range(arity - 1):
            if self.take(",") is None:
                raise self.refusal(
                    self.peek(), f"expected ',': {name.text} takes {arity} arguments"
                )
            tokens += self.sum()
        if self.peek().text == ",":
            raise self.refusal(self.peek(), f"expected ')': {name.text} takes {arity} argument(s)")
        self._close()
        return tokens

    def _close(self) -> None:
        if self.take(")") is None:
            raise self.refusal(self.peek(), "expected an operator or ')'")
        self._depth -= 1

    def _enter(self, word: _Word) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self.refusal(word, f"expected at most {_DEEPEST} nested levels")

    def _joined(self, operator: str, left: list[Token], right: list[Token]) -> list[Token]:
        # Checked here, because a long sum copies its left side for each operator.
        if len(left) > LARGEST_SIZE:
            raise MetalossError(f"expression: expected at most {LARGEST_SIZE} nodes")
        return [operator, *left, *right]


def _words(text: str) -> list[_Word]:
    words, at = [], 0
    end = len(text.rstrip(_BLANK))
    while at < end:
        match = _WORD.match(text, at)
        if match is None:
            rest = text[at:]
            column = at + len(rest) - len(rest.lstrip(_BLANK)) + 1
            raise MetalossError(
                f"expression, column {column}: unexpected character {text[column - 1]!r}"
            )
        kind = str(match.lastgroup)
        words.append(_Word(kind, match[kind], match.start(kind) + 1))
        at = match.end()
    return [*words, _Word("end", "", end + 1)]
