"""The words of the command line, read by Hydra's grammar and checked before Hydra composes."""

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
from metaloss.errors import MetalossError, unknown_name
from metaloss.registry import GROUPS

# What of Hydra's own settings a sweep may touch: who runs the jobs, which jobs, their folders.
_HYDRA_KEYS = (
    "hydra/launcher",
    "hydra/sweeper",
    "hydra.launcher",
    "hydra.sweeper",
    "hydra.sweep.subdir",
)
# Options whose values are text in a grammar of their own.
_TEXTS = (".expression",)


def parse(words: Sequence[str], *, sweep: bool = False) -> list[Override]:
    """Parse and check ``KEY=VALUE`` words.

    Args:
        words: In Hydra's override grammar.
        sweep: Whether a word may stand for several jobs, and Hydra's own settings may be set.

    Raises:
        MetalossError: For the first word that cannot be read, chooses an unknown part, or asks
            for something that no configuration does.
    """
    overrides = [_parse_one(renamed(word)) for word in words]
    for override in overrides:
        _check(override, sweep)
    return overrides


def choices(overrides: Iterable[Override]) -> Iterator[tuple[str, str]]:
    """Yield every (group, name) that words choose; all of a sweep's, what is added included."""
    for override in overrides:
        group = override.key_or_group
        if group in GROUPS or group in ADDED:
            for name in _names(override):
                yield group, name


def for_hydra(overrides: Iterable[Override]) -> list[str]:
    """Return the words as Hydra is to read them: its root has a place for a row of the paper."""
    lines = [str(override.input_line) for override in overrides]
    return [line.removeprefix("+") if line.startswith("+paper=") else line for line in lines]


def _parse_one(word: str) -> Override:
    if word.startswith("=") or ("=" not in word and not word.startswith("~")):
        raise MetalossError(f"cannot read {word!r}: expected KEY=VALUE such as schedule=online")
    try:
        return OverridesParser.create().parse_override(_quoted(word))
    except HydraException as error:
        reason = str(error).strip().split("\n")[0]
        raise MetalossError(
            f"cannot read {word!r}: {reason}; expected KEY=VALUE, and quotes around special "
            """characters: "KEY='a=b, c'\""""
        ) from error


def _quoted(word: str) -> str:
    """Put quotes around a value whose text has a grammar of its own, unless it is Hydra's already.

    Hydra would look for ``square(sub(t, p))`` among its functions.
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
            f"{word!r}: only +preset=NAME and +paper=NAME take a sign; every other key exists: "
            "write KEY=VALUE"
        )
    if override.package is not None:
        raise MetalossError(f"{word!r}: a key has no '@'; write KEY=VALUE")
    if "/" in key:
        raise MetalossError(f"{word!r}: a key has dots, no slashes: {key.replace('/', '.')}")
    if is_added and not override.is_add():
        raise MetalossError(f"{word!r}: a {key} is added: write +{word}")
    if override.is_sweep_override() and not sweep:
        raise MetalossError(
            f"{word!r} asks for several runs: add --multirun, or write a list as [a,b]"
        )
    for value in _leaves(override):
        if isinstance(value, str) and "${" in value:
            raise MetalossError(f"{word!r}: interpolations are not evaluated here")
        if value == "???":
            raise MetalossError(f"{word!r}: ??? stands for no value: give one")
    _refuse_names(key, override.value())
    if key in GROUPS or is_added:
        _check_choice(override)


def _check_hydra(override: Override, sweep: bool) -> None:
    word, key = override.input_line, override.key_or_group
    if not sweep:
        raise MetalossError(f"{word!r}: hydra's own settings need --multirun")
    if not any(key == known or key.startswith((f"{known}.", f"{known}/")) for known in _HYDRA_KEYS):
        raise MetalossError(f"{word!r}: of hydra's own settings, only {', '.join(_HYDRA_KEYS)}")
    if "_target_" in key or "_target_" in _dict_keys(override.value()):
        raise MetalossError(f"{word!r}: a config never names what to import")


def _check_choice(override: Override) -> None:
    word, group = override.input_line, override.key_or_group
    if isinstance(override.value(), dict):
        return  # options of the group as one word: Hydra merges them
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
            registry.get(group, name)  # says what is wrong with it, if anything
        elif name not in ADDED[group]:
            raise unknown_name(group, name, ADDED[group])
    if override.value_type == ValueType.ELEMENT and len(set(names)) < len(names):
        raise MetalossError(f"{word!r}: a name occurs twice")


def _refuse_names(key: str, value: Any) -> None:
    """Raise if a mapping would set a part's name: merging does not mind that it is read-only."""
    if not isinstance(value, dict):
        return
    if key == "tracker":
        for name, options in value.items():
            _refuse_names(f"tracker.{name}", options)
    elif "name" in value and (key in GROUPS or key.startswith("tracker.")):
        raise name_cannot_be_set(f"{key}.name")


def _names(override: Override) -> list[str]:
    """Return the names that a word on a group chooses; a glob's are Hydra's affair."""
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
