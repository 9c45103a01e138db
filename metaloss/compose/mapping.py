"""``KEY=VALUE`` words from Python values, quoted for Hydra's grammar."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from metaloss.compose.added import ADDED
from metaloss.errors import MetalossError

_OBJECTS = ("task", "model", "loss")
_LONGEST = 60  # characters of a value in a message


def to_overrides(values: Mapping[str, Any]) -> list[str]:
    """Return ``KEY=VALUE`` words for a mapping with dotted or nested keys.

    Args:
        values: For example ``{"schedule": "online", "inner.lr": 0.1, "inner": {"momentum": 0}}``.
            Values are None, booleans, numbers, strings, paths, enum members, and lists of these.

    Raises:
        MetalossError: If a key is no string or a value is of another type.

    Example:
        >>> to_overrides({"schedule": "online", "inner.lr": 0.1, "tracker": []})
        ["schedule='online'", 'inner.lr=0.1', 'tracker=[]']
    """
    return [f"{key}={_word(key, value)}" for key, value in flat(values)]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of a mapping with their values; those of presets begin with a plus.

    Example:
        >>> [*flat({"inner": {"lr": 0.1}, "preset": "auto"})]
        [('inner.lr', 0.1), ('+preset', 'auto')]
    """
    for key, value in values.items():
        if not isinstance(key, str):
            raise MetalossError(f"config key {key!r}: expected a string")
        path = prefix + (f"+{key}" if not prefix and key in ADDED else key)
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}.")
        else:
            yield path, value


def _word(key: str, value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, Enum):
        value = value.name
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        return repr(float(value))
    if isinstance(value, str | Path):
        return QuotedString(text=str(value), quote=Quote.single).with_quotes()
    if isinstance(value, list | tuple):
        return "[" + ",".join(_word(key, item) for item in value) + "]"
    shown, kind = " ".join(repr(value).split()), type(value).__name__
    shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
    own = f"; an object of your own is the argument {key} of metaloss.train"
    raise MetalossError(
        f"{key}={shown} is of type {kind}: expected None, a boolean, a number, text or a list of "
        f"these{own if key in _OBJECTS else ''}"
    )
