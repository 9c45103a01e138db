"""Errors for users: one line with what was given and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MetalossError(ValueError):
    """An error in what the user asked for. The message is one line.

    The command line prints the message without a traceback and exits with ``exit_status``.
    """

    exit_status = 2


class DivergedError(MetalossError):
    """Training diverged, and ``guard=raise`` asked to stop."""

    exit_status = 3


class UnsupportedError(MetalossError):
    """A part cannot do what was asked. The message names a part that can."""


def check_range(option: str, value: object, holds: bool, expected: str) -> None:
    """Raise unless an option's value is in its range.

    Args:
        option: The option's name, such as ``"inner.lr"``.
        value: Its value.
        holds: Whether the value is in the range.
        expected: The range in words.

    Raises:
        MetalossError: If ``holds`` is false.

    Example:
        >>> check_range("inner.lr", -1, -1 > 0, "a number > 0")
        Traceback (most recent call last):
        metaloss.errors.MetalossError: inner.lr=-1: expected a number > 0
    """
    if not holds:
        raise MetalossError(f"{option}={value}: expected {expected}")


def check_whole(option: str, value: object, least: int, most: int | None = None) -> None:
    """Raise unless an option's value is a whole number, from ``least`` to ``most``.

    Example:
        >>> check_whole("task.subset", 0, 1)
        Traceback (most recent call last):
        metaloss.errors.MetalossError: task.subset=0: expected a whole number, at least 1
    """
    allowed = f", at least {least}" if most is None else f" from {least} to {most}"
    whole = isinstance(value, int) and not isinstance(value, bool)
    within = whole and least <= value and (most is None or value <= most)  # type: ignore[operator]
    check_range(option, value, within, f"a whole number{allowed}")


def check_index(option: str, value: object) -> None:
    """Raise unless an option's value is a whole number that a tensor of class indices can hold."""
    check_whole(option, value, -(2**63), 2**63 - 1)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; its type, if the message is empty.

    Example:
        >>> first_line(MemoryError())
        'MemoryError'
    """
    return str(error).strip().split("\n")[0] or type(error).__name__


def unknown_name(kind: str, got: object, known: Iterable[str]) -> MetalossError:
    """Return the error for an unknown name, with the nearest valid one.

    Args:
        kind: What was looked up, for example ``"loss"``.
        got: The name as the user gave it.
        known: Every valid name.

    Example:
        >>> str(unknown_name("loss", "mpl", ["mlp", "mse"]))
        "unknown loss 'mpl': did you mean 'mlp'? (allowed: mlp, mse)"
    """
    names = sorted(known)
    close = difflib.get_close_matches(str(got), names, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return MetalossError(f"unknown {kind} {got!r}: {hint}(allowed: {', '.join(names) or 'none'})")


def known_name(option: str, given: object, known: Iterable[str]) -> str:
    """Return a valid name, given as a string or as an Enum's member.

    Raises:
        MetalossError: If it is not one of ``known``; the message has the nearest valid name.

    Example:
        >>> known_name("guard", "on", ["on", "off"])
        'on'
    """
    name = str(getattr(given, "value", given))
    if name not in known:
        raise unknown_name(option, name, known)
    return name
