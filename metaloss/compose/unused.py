"""Refuses words for options that have no effect beside the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from metaloss.compose.words import parse
from metaloss.config import RunConfig, Selected
from metaloss.contracts import Schedule, SearchMetaOptimizer
from metaloss.errors import MetalossError
from metaloss.options import unused

# True while a comparison trains: its rows and blocks share words, which need not all count in each.
_shared = ContextVar("words of a comparison", default=False)


@contextmanager
def shared_words() -> Iterator[None]:
    """Take words without effect, in this block and what it calls."""
    before = _shared.set(True)
    try:
        yield
    finally:
        _shared.reset(before)


def refuse_unused(config: RunConfig, words: Iterable[str]) -> None:
    """Raise for the first word that would change nothing.

    Only words are refused: the file of a run has all options, and what it was made with stays.

    Raises:
        MetalossError: If an option has another value than its default, and no effect.
    """
    if _shared.get():
        return
    keys = [key for word in words for key in _keys(word)]
    between = _between_parts(config, keys)
    for key in keys:
        group, *path = key.split(".")
        chosen = getattr(config, group, None)
        if not isinstance(chosen, Selected) or not path:
            continue
        *outer, name = path
        options, needs = chosen.options, between.get(key)
        for part in outer:  # options within options
            options = getattr(options, part, None)
        if needs is None and (needs := unused(options).get(name)):
            within = ".".join([group, *outer, ""])
            needs = needs.replace(f"{group}.", within)
        if needs and not _is_default(options, name):
            value = getattr(options, name)
            shown = str(value).lower() if isinstance(value, bool) else getattr(value, "name", value)
            raise MetalossError(f"{key}={shown} has no effect: it needs {needs}")


def _keys(word: str) -> Iterator[str]:
    """Yield the dotted keys that a word sets: several if its value is a mapping."""
    key, _, value = word.partition("=")
    if not value.startswith("{"):
        yield key
        return
    (override,) = parse([word])
    stack = [(key, override.value())]
    while stack:
        key, item = stack.pop()
        if isinstance(item, Mapping):
            stack += [(f"{key}.{name}", inner) for name, inner in item.items()]
        else:
            yield key


def _is_default(options: Any, name: str) -> bool:
    (field,) = (one for one in dataclasses.fields(options) if one.name == name)
    factory = field.default_factory
    default = field.default if factory is dataclasses.MISSING else factory()
    return bool(getattr(options, name) == default)


def _between_parts(config: RunConfig, keys: list[str]) -> dict[str, str]:
    """Return the options of a meta-optimizer and of its schedule that the other part leaves out."""
    schedule = config.schedule.options
    if not isinstance(schedule, Schedule):
        return {}
    offline, online = schedule.moves_in("offline"), schedule.moves_in("train")
    if isinstance(config.meta_optimizer.options, SearchMetaOptimizer):
        steps = "meta-steps, and a search has none: see meta_optimizer.generations"
        return {} if online else dict.fromkeys(("schedule.offline_steps", "schedule.unroll"), steps)
    found: dict[str, str] = {}
    if offline and not online:
        found["meta_optimizer.ema"] = "meta-steps in training, such as schedule=online"
        found["meta_optimizer.lr"] = (
            "online meta-steps; for those of an offline phase there is meta_optimizer.offline_lr"
        )
    if online and not offline:
        found["meta_optimizer.offline_lr"] = (
            "an offline phase, such as schedule.offline_steps=1000; for online meta-steps there is "
            "meta_optimizer.lr"
        )
    # Who gives both rates knows that there are two, and may give them to several schedules.
    if {"meta_optimizer.lr", "meta_optimizer.offline_lr"} <= {*keys}:
        found = {key: needs for key, needs in found.items() if not key.endswith("lr")}
    return found
