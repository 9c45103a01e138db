"""Errors of Hydra and OmegaConf as one line: what was given, what is allowed, the nearest name."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.errors import MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ReadonlyConfigError,
)

from metaloss import registry
from metaloss.compose.added import ADDED
from metaloss.errors import MetalossError, first_line, unknown_name

_WORDS: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    Path: ("a path", "paths"),
}


def explain(error: Exception) -> MetalossError:
    """Return the one-line error for an exception that was raised while composing."""
    if isinstance(error, MetalossError):
        return error
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        missing = _missing_choice(error)
        if missing is not None:
            return missing
    cause = _omegaconf_cause(error)
    found = re.match(r"In '(preset|paper)/([^']+)'", str(error))
    if found and isinstance(cause, ConfigKeyError | ConfigAttributeError):
        return _does_not_fit(found[1], found[2], cause)
    where = f"{found[1]} {found[2]!r}: " if found else ""
    message = str(_explain_omegaconf(cause)) if cause else first_line(error)
    return MetalossError(where + message)


def name_cannot_be_set(key: str) -> MetalossError:
    """Return the error for a word such as ``model.name=cnn``."""
    group = key.partition(".")[0]
    choice = "tracker=[NAME]" if group == "tracker" else f"{group}=NAME"
    return MetalossError(f"{key} cannot be set: to choose another part, use {choice}")


def expected(hint: Any) -> str:
    """Return in words what values a type allows.

    Example:
        >>> expected(list[int])
        'a list of whole numbers'
        >>> expected(float | None)
        'a number or null'
    """
    if hint in _WORDS:
        return _WORDS[hint][0]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = [expected(arg) for arg in args if arg is not types.NoneType]
        return " or ".join([*kinds, "null"] if types.NoneType in args else kinds)
    if origin in (list, tuple):
        return f"a list of {_WORDS.get(args[0], ('', 'values'))[1]}" if args else "a list"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return f"one of {', '.join(member.name for member in hint)}"
    if dataclasses.is_dataclass(hint):
        return f"options ({', '.join(f.name for f in dataclasses.fields(hint))})"
    return "another value"


def option_types(options: type) -> dict[str, str]:
    """Return in words what values each option of a dataclass allows, by name."""
    try:
        hints = typing.get_type_hints(options)
    except NameError:  # an annotation that is imported for type checkers only
        return {}
    return {name: expected(hint) for name, hint in hints.items()}


def as_written(value: Any) -> str:
    """Return a value as a configuration writes it."""
    if value is None:
        return "null"
    if isinstance(value, Enum):
        return value.name
    return str(value).lower() if isinstance(value, bool) else str(value)


def _missing_choice(error: MissingConfigException) -> MetalossError | None:
    path = str(error.missing_cfg_file)
    group, _, name = path.removesuffix(".yaml").partition("/")
    if group == "hydra":  # a launcher or sweeper
        parent, _, last = path.rpartition("/")
        return unknown_name(parent, last, error.options or ())
    if group not in registry.GROUPS:
        return None
    try:
        registry.get(group, name)
    except MetalossError as reason:
        return reason
    return None


def _omegaconf_cause(error: BaseException | None) -> OmegaConfBaseException | None:
    while error is not None:
        if isinstance(error, OmegaConfBaseException):
            return error
        error = error.__cause__ or error.__context__
    return None


def _explain_omegaconf(error: OmegaConfBaseException) -> MetalossError:
    key = str(error.full_key or error.key or "")
    if isinstance(error, ReadonlyConfigError):
        return name_cannot_be_set(key)
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        return _unknown_key(error, key)
    if isinstance(error, MissingMandatoryValue):
        return MetalossError(f"{key} has no default: give {key}=VALUE")
    hint = _hint(error)
    if hint is None:
        reason = first_line(error)
        return MetalossError(f"{key}: {reason}" if key else reason)
    value = error.value
    got = as_written(value)
    kinds = [arg for arg in (typing.get_args(hint) or (hint,)) if isinstance(arg, type)]
    for kind in kinds:
        if issubclass(kind, Enum) and isinstance(value, str):
            return unknown_name(f"value of {key}", value, [member.name for member in kind])
    return MetalossError(f"{key}={got}: expected {expected(hint)}")


def _does_not_fit(kind: str, name: str, error: Any) -> MetalossError:
    """Return the error for a preset with an option that the chosen part does not have."""
    preset, key = ADDED[kind][name], str(error.full_key)
    group, _, option = key.partition(".")
    value, chosen = as_written(preset.options[group][option]), error.parent_node["name"]
    own = f"{group}={preset.choices[group]}" if group in preset.choices else f"another {group}"
    return MetalossError(
        f"+{kind}={name} sets {key}={value}, and {group}={chosen} has no such option: choose "
        f"{own}, or leave out +{kind}={name}"
    )


def _unknown_key(error: OmegaConfBaseException, key: str) -> MetalossError:
    parent = error.parent_node
    prefix, _, last = key.rpartition(".")
    if not isinstance(parent, DictConfig):
        return MetalossError(f"unknown key {key!r}")
    if prefix == "tracker":
        if last in registry.names("tracker"):
            return MetalossError(
                f"{key} is set, but this tracker is not chosen: add tracker=[{last}]"
            )
        return unknown_name("tracker", last, registry.names("tracker"))
    siblings = sorted(str(name) for name in parent if name not in ("name", "hydra", "defaults"))
    if not prefix:
        return unknown_name("key", key, siblings)
    chosen = OmegaConf.select(parent, "name") if prefix in registry.GROUPS else None
    owner = f" of {prefix}={chosen}" if chosen else ""
    # Compared without the common prefix, shown with it.
    close = difflib.get_close_matches(last, siblings, n=1, cutoff=0.4)
    hint = f"did you mean '{prefix}.{close[0]}'? " if close else ""
    allowed = ", ".join(f"{prefix}.{name}" for name in siblings)
    return MetalossError(f"unknown option {key!r}{owner}: {hint}(allowed: {allowed or 'none'})")


def _hint(error: OmegaConfBaseException) -> Any:
    """Return the declared type of the value that caused an error; None if unknown."""
    parent = error.parent_node
    if isinstance(parent, ListConfig):
        return (typing.get_args(parent._metadata.ref_type) or (None,))[0]
    declared = error.object_type
    if not dataclasses.is_dataclass(declared):
        return None
    try:
        return typing.get_type_hints(declared).get(str(error.key))
    except NameError:  # an annotation that is imported for type checkers only
        return None
