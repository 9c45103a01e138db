"""What a user is told when a request cannot be met: one line, with the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MetalossError(ValueError):
    """A request that cannot be met; the message is one line for the user.

    The command line prints the message without a traceback and exits with ``exit_status``.
    """

    exit_status = 2


class DivergedError(MetalossError):
    """Training diverged, and the run was asked to stop at the first sign (``guard=raise``)."""

    exit_status = 3


class UnsupportedError(MetalossError):
    """A part was asked for something that it cannot do; the message names a part that can."""


def unknown_name(kind: str, got: object, known: Iterable[str]) -> MetalossError:
    """Return the error for a name that is not known, with the nearest valid one.

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
    """Return a name, given as such or as an Enum's member, if it is one of ``known``.

    Raises:
        MetalossError: If it is not; with the nearest valid one.

    Example:
        >>> known_name("guard", "on", ["on", "off"])
        'on'
    """
    name = str(getattr(given, "value", given))
    if name not in known:
        raise unknown_name(option, name, known)
    return name
