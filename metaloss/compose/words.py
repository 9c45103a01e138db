"""Parses the words of the command line by Hydra's grammar, and checks them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Override,
    Quote,
    QuotedString,
    ValueType,
)
from hydra.errors import HydraException

from metaloss import registry
from metaloss.compose.added import ADDED
from metaloss.compose.explain import name_cannot_be_set
from metaloss.compose.renamed import renamed
from metaloss.errors import MetalossError, first_line, unknown_name
from metaloss.registry import GROUPS

# Hydra's own settings that a sweep may set: launcher, sweeper and the jobs' folders.
_HYDRA_KEYS = (
    "hydra/launcher",
    "hydra/sweeper",
    "hydra.launcher",
    "hydra.sweeper",
    "hydra.sweep.subdir",
)
# Options with text of another grammar.
_TEXTS = (".expression",)


def parse(words: Sequence[str], *, sweep: bool = False) -> list[Override]:
    """Parse and check ``KEY=VALUE`` words.

    Args:
        words: In Hydra's override grammar.
        sweep: Whether a word may have several values, and Hydra's own settings may be set.

    Raises:
        MetalossError: For the first word that cannot be read, chooses an unknown part, or is not
            supported.
    """
    overrides = [_parse_one(renamed(word)) for word in words]
    for override in overrides:
        _check(override, sweep)
    return overrides


def choices(overrides: Iterable[Override]) -> Iterator[tuple[str, str]]:
    """Yield every (group, name) that words choose, with presets and all values of a sweep."""
    for override in overrides:
        group = override.key_or_group
        if group in GROUPS or group in ADDED:
            for name in _names(override):
                yield group, name


def for_hydra(overrides: Iterable[Override]) -> list[str]:
    """Return the words for Hydra. ``+paper=`` loses its sign, as the root has this group."""
    lines = [str(override.input_line) for override in overrides]
    return [line.removeprefix("+") if line.startswith("+paper=") else line for line in lines]


def _parse_one(word: str) -> Override:
    if word.startswith("=") or ("=" not in word and not word.startswith("~")):
        raise MetalossError(f"cannot read {word!r}: expected KEY=VALUE such as schedule=online")
    try:
        return OverridesParser.create().parse_override(_quoted(word))
    except HydraException as error:
        reason = first_line(error)
        raise MetalossError(
            f"cannot read {word!r}: {reason}; expected KEY=VALUE, and quotes around special "
            """characters: "KEY='a=b, c'\""""
        ) from error


def _quoted(word: str) -> str:
    """Put quotes around a value with text of another grammar, unless it has quotes.

    Otherwise Hydra would read ``square(sub(t, p))`` as a call of one of its functions.
    """
    key, _, value = word.partition("=")
    if not key.endswith(_TEXTS) or value.startswith(("'", '"', "choice(")):
        return word
    return f"{key}={QuotedString(text=value, quote=Quote.single).with_quotes()}"


def _check(override: Override, sweep: bool) -> None:
    word, key = override.input_line, override.key_or_group
    if key == "hydra" or key.startswith(("hydra.", "hydra/")):
        _check_hydra(override, sweep)
        return
    is_added = key in ADDED
    if override.is_delete() or override.is_force_add() or (override.is_add() and not is_added):
        raise MetalossError(
            f"{word!r}: expected KEY=VALUE without a sign; only +preset=NAME and +paper=NAME have "
            "one"
        )
    if override.package is not None:
        raise MetalossError(f"{word!r}: expected KEY=VALUE without '@'")
    if "/" in key:
        raise MetalossError(f"{word!r}: expected dots instead of slashes: {key.replace('/', '.')}")
    if is_added and not override.is_add():
        raise MetalossError(f"{word!r}: expected +{word}")
    if override.is_sweep_override() and not sweep:
        raise MetalossError(
            f"{word!r} has several values: add --multirun, or write a list as [a,b]"
        )
    for value in _leaves(override):
        if isinstance(value, str) and "${" in value:
            raise MetalossError(f"{word!r}: interpolations (${{...}}) are not allowed")
        if value == "???":
            raise MetalossError(f"{word!r}: expected a value instead of ???")
    _refuse_names(key, override.value())
    if key in GROUPS or is_added:
        _check_choice(override)


def _check_hydra(override: Override, sweep: bool) -> None:
    word, key = override.input_line, override.key_or_group
    if not sweep:
        raise MetalossError(f"{word!r}: Hydra's settings need --multirun")
    if not any(key == known or key.startswith((f"{known}.", f"{known}/")) for known in _HYDRA_KEYS):
        raise MetalossError(
            f"{word!r}: unknown setting of Hydra (allowed: {', '.join(_HYDRA_KEYS)})"
        )
    if "_target_" in key or "_target_" in _dict_keys(override.value()):
        raise MetalossError(f"{word!r}: _target_ is not allowed")


def _check_choice(override: Override) -> None:
    word, group = override.input_line, override.key_or_group
    if isinstance(override.value(), dict):
        return  # options of the group in one word, which Hydra merges
    names = _names(override)
    several = group in ("tracker", "preset")
    if override.value_type == ValueType.ELEMENT and not (
        isinstance(override.value(), str) or (several and isinstance(override.value(), list))
    ):
        expected = "names such as [console]" if group == "tracker" else "a name"
        known = ADDED[group] if group in ADDED else registry.names(group)
        raise MetalossError(f"{word!r}: expected {expected} (allowed: {', '.join(sorted(known))})")
    for name in names:
        if group not in ADDED:
            registry.get(group, name)  # raises if the name is invalid
        elif name not in ADDED[group]:
            raise unknown_name(group, name, ADDED[group])
    if override.value_type == ValueType.ELEMENT and len(set(names)) < len(names):
        raise MetalossError(f"{word!r}: a name occurs twice")


def _refuse_names(key: str, value: Any) -> None:
    """Raise if a mapping would set a part's name; a merge ignores that it is read-only."""
    if not isinstance(value, dict):
        return
    if key == "tracker":
        for name, options in value.items():
            _refuse_names(f"tracker.{name}", options)
    elif "name" in value and (key in GROUPS or key.startswith("tracker.")):
        raise name_cannot_be_set(f"{key}.name")


def _names(override: Override) -> list[str]:
    """Return the names that a word chooses in a group; for a glob pattern, none."""
    values: list[Any]
    if override.is_sweep_override():
        swept = override.value()
        values = list(swept.list) if isinstance(swept, ChoiceSweep) else []
    else:
        values = [override.value()]
    flat: list[Any] = []
    for value in values:
        value = Override._convert_value(value)
        flat += value if isinstance(value, list) else [value]
    return [str(name) for name in flat if not isinstance(name, dict) and name is not None]


def _leaves(override: Override) -> Iterator[Any]:
    value = override.value()
    stack: list[Any] = list(value.list) if isinstance(value, ChoiceSweep) else [value]
    while stack:
        item = Override._convert_value(stack.pop())
        if isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, list):
            stack += item
        else:
            yield item


def _dict_keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {str(k) for k in value}.union(*(_dict_keys(v) for v in value.values()))
    if isinstance(value, list):
        return set().union(*(_dict_keys(item) for item in value))
    return set()
