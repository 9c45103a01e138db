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
    return [f"{key}={_word(key, value)}" for key, value in _flat(values, "")]


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if not isinstance(key, str):
            raise MetalossError(f"config key {key!r}: expected a string")
        path = prefix + (f"+{key}" if not prefix and key in ADDED else key)
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}.")
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
    raise MetalossError(
        f"{key}={value!r} is of type {type(value).__name__}: expected None, a boolean, a number, "
        "text or a list of these"
    )
