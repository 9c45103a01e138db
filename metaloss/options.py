"""Options: dataclasses that refuse a value of another type in one line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

from metaloss.errors import MetalossError, unknown_name


class Options:
    """The base class of options: frozen dataclasses whose fields have types.

    A value of another type is refused before ``__post_init__`` sees it. The types are those of the
    command line: bool, int, float (finite), str, an Enum, lists of them, options within options,
    and None where it is allowed. Fields of other types are not checked.

    Args:
        group: Where the options are on the command line, for messages.

    Raises:
        MetalossError: If a value has another type than its field.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Halving(Options, group="inner"):
        ...     lr: float = 0.5
        >>> Halving(lr="fast")
        Traceback (most recent call last):
        metaloss.errors.MetalossError: inner.lr='fast': expected a finite number
    """

    _prefix: ClassVar[str] = ""

    def __init_subclass__(cls, *, group: str | None = None, **rest: Any) -> None:
        """Remember the group; subclasses inherit it."""
        super().__init_subclass__(**rest)
        if group is not None:
            cls._prefix = f"{group}."

    def __new__(cls, *args: Any, **given: Any) -> Self:
        """Check the types of what is given, then make the object."""
        made = super().__new__(cls)
        found: Any = cls
        types = _types(found)
        for name, value in given.items():
            if name in types and not _fits(types[name], value):
                own = _own_refusal(made, name, value)
                raise own or _refusal(f"{cls._prefix}{name}", types[name], value)
        return made

    def __post_init__(self) -> None:
        """Check nothing: here the chain of ``super().__post_init__()`` ends."""


def unused(options: Any) -> dict[str, str]:
    """Return the options that have no effect beside the others, and what each of them needs.

    A field says so by ``metadata={"needs": (test, words)}``: the option has an effect if ``test``
    is true of the options.

    Example:
        >>> from metaloss import SGD
        >>> from metaloss.inner.optimizers.rates import RateSchedule
        >>> "period" in unused(SGD()), "period" in unused(SGD(schedule=RateSchedule.cosine))
        (True, False)
    """
    found = {}
    for field in fields(options) if is_dataclass(options) else ():
        test, words = field.metadata.get("needs", (None, ""))
        if test is not None and not test(options):
            found[field.name] = words
    return found


@cache
def _types(cls: Any) -> dict[str, Any]:
    if not is_dataclass(cls):
        return {}
    try:
        return get_type_hints(cls)
    except NameError:  # a class inside a function, with types that are known there alone
        return {}


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _fits(kind: Any, value: object) -> bool:
    return any(_is(one, value) for one in _alternatives(kind))


def _is(kind: Any, value: object) -> bool:
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        if not isinstance(value, Sequence) or isinstance(value, str):
            return False
        return all(_fits(item, one) for one in value)
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, Real) and not isinstance(value, bool) and _finite(value)
    whole = isinstance(kind, type) and (issubclass(kind, Enum) or is_dataclass(kind))
    if kind in (str, NoneType) or whole:
        return isinstance(value, kind)
    return True


def _finite(value: Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False


def _own_refusal(made: Any, name: str, value: object) -> MetalossError | None:
    """Return how the class itself refuses the value: its words contain the range."""
    try:
        made.__init__(**{name: value})
    except MetalossError as error:
        return error if f"{name}={value}: " in str(error) else None
    except (TypeError, ValueError, AttributeError, OverflowError):
        return None
    return None


def _refusal(option: str, kind: Any, value: object) -> MetalossError:
    kinds = _alternatives(kind)
    enums = [one for one in kinds if isinstance(one, type) and issubclass(one, Enum)]
    if enums and isinstance(value, str):
        names = {member.name: str(member) for member in enums[0]}
        if value not in names:
            return unknown_name(option, value, names)
        return MetalossError(f"{option}={value!r}: expected {enums[0].__name__}[{value!r}]")
    return MetalossError(f"{option}={value!r}: expected {' or '.join(map(_words, kinds))}")


def _words(kind: Any) -> str:
    if get_origin(kind) is list:
        items = {bool: "booleans", int: "whole numbers", float: "finite numbers", str: "texts"}
        return f"a list of {items.get(get_args(kind)[0], 'values')}"
    plain: dict[Any, str] = {
        bool: "True or False",
        int: "a whole number",
        float: "a finite number",
        str: "a text",
        NoneType: "None",
    }
    if isinstance(kind, type) and is_dataclass(kind):
        return f"a value of the type {kind.__name__}"
    return plain[kind] if kind in plain else f"one of {', '.join(str(one) for one in kind)}"
