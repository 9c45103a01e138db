"""All parts by name. Built-in parts and plugins are registered the same way: by entry points."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

from metaloss.errors import MetalossError, unknown_name

# The key in the config, and the entry point group of the parts.
GROUPS = {
    "task": "metaloss.tasks",
    "model": "metaloss.models",
    "loss": "metaloss.losses",
    "schedule": "metaloss.schedules",
    "start": "metaloss.starts",
    "meta_optimizer": "metaloss.meta_optimizers",
    "inner": "metaloss.inner_optimizers",
    "tracker": "metaloss.trackers",
}

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One registered class.

    Attributes:
        group: One of ``GROUPS``.
        name: The name in the config.
        cls: The class. Its options are the dataclass ``cls.Config``, or the class itself if it is
            a dataclass.
        source: The distribution that it comes from, with its version, or the file.
    """

    group: str
    name: str
    cls: type
    source: str

    @property
    def config_class(self) -> type:
        """The frozen dataclass that holds the part's options."""
        config = getattr(self.cls, "Config", None) or self.cls
        if not dataclasses.is_dataclass(config):
            raise MetalossError(
                f"{self.group} {self.name!r} ({self.source}) has no options class: make it a "
                "frozen dataclass, or give it one as the attribute 'Config'"
            )
        return config

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return (self.cls.__doc__ or "").strip().split("\n")[0]

    def build(self, config: Any, **context: Any) -> Any:
        """Make the object from an instance of ``config_class``.

        A loss also needs ``link=``, a model ``input_shape=`` and ``outputs=``. Other parts need
        nothing else. The options of a loss must be complete (`TaskDependent`).
        """
        if self.config_class is self.cls:
            return config
        return self.cls(config, **context)


_registered: dict[tuple[str, str], Part] = {}

# The source of parts that `register` adds; the path of a plugin file while it is loaded.
registering: ContextVar[str] = ContextVar("registering", default="this session")


def register(group: str, name: str, *, source: str | None = None) -> Callable[[type[T]], type[T]]:
    """Register a class, in a notebook or in a file given with ``--plugin``.

    Args:
        group: ``"task"``, ``"model"``, ``"loss"``, ``"schedule"``, ``"start"``,
            ``"meta_optimizer"``, ``"inner"`` or ``"tracker"``.
        name: The name in the config.
        source: Where the class comes from, for messages.

    Raises:
        MetalossError: If the group is unknown, or the name is registered already.

    Example:
        >>> from metaloss.losses.handcrafted import MSE
        >>> @register("loss", "docs_example")
        ... class Example(MSE):
        ...     '''Squared error under another name.'''
        >>> get("loss", "docs_example").cls is Example
        True
    """
    _check_group(group)
    # Entry points are compared without loading them: this must not import every plugin.
    known = _registered.get((group, name))
    owners = [known.source] if known else [_source(p) for p in _announced(group).get(name, [])]
    if owners:
        raise MetalossError(
            f"{group} {name!r} is registered already, by {', '.join(owners)}: "
            f"{source or registering.get()} must choose another name"
        )

    def add(cls: type[T]) -> type[T]:
        part = Part(group=group, name=name, cls=cls, source=source or registering.get())
        _ = part.config_class
        _registered[group, name] = part
        return cls

    return add


def names(group: str) -> list[str]:
    """Return every name in a group, sorted, including parts that fail to load."""
    _check_group(group)
    return sorted({*_announced(group), *(name for g, name in _registered if g == group)})


def is_known(group: str, name: str) -> bool:
    """Return whether a name is in a group, even if it fails to load."""
    _check_group(group)
    return (group, name) in _registered or name in _announced(group)


def get(group: str, name: str) -> Part:
    """Return a part by name.

    Raises:
        MetalossError: If the name is unknown, announced twice, or if its distribution fails to
            load.
    """
    _check_group(group)
    if (group, name) in _registered:
        return _registered[group, name]
    found = _announced(group).get(name)
    if found is None:
        raise unknown_name(group, name, names(group))
    if len(found) > 1:
        where = ", ".join(_source(point) for point in found)
        raise MetalossError(f"{group} {name!r} is announced twice, by {where}: uninstall one")
    point = found[0]
    try:
        cls = point.load()
    except Exception as error:  # a plugin may raise anything
        raise MetalossError(
            f"{group} {name!r} ({_source(point)}) failed to load: {type(error).__name__}: {error}"
        ) from error
    part = Part(group=group, name=name, cls=cls, source=_source(point))
    _ = part.config_class
    _registered[group, name] = part
    return part


def as_part(group: str, given: T | str, kind: type[T], *, option: str, example: str) -> T:
    """Return a part that is given as an object or by its registered name.

    Args:
        group: Where the name is looked up.
        given: An object, or a name. A name gives the part with its default options.
        kind: The class that the object must be an instance of.
        option: The argument's name, for the message.
        example: Such an object in Python, for the message.

    Raises:
        MetalossError: If the name is unknown or the object is of another class.

    Example:
        >>> from metaloss.contracts import InnerOptimizer
        >>> as_part("inner", "sgd", InnerOptimizer, option="inner", example="SGD(lr=0.1)").lr
        0.1
    """
    part = get(group, given).cls() if isinstance(given, str) else given
    if not isinstance(part, kind):
        raise MetalossError(
            f"{option} is a {type(part).__name__}: expected {kind.__name__}, such as {example}, "
            "or its registered name"
        )
    return part


def name_of(group: str, cls: type) -> str | None:
    """Return the name that a class is registered under, None if it is not."""
    _check_group(group)
    for part in _registered.values():
        if part.group == group and part.cls is cls:
            return part.name
    # Entry points are compared without loading them, as in `register`.
    place = f"{cls.__module__}:{cls.__qualname__}"
    return next(
        (n for n, found in _announced(group).items() if any(p.value == place for p in found)), None
    )


def entry_points(group: str) -> Sequence[EntryPoint]:
    """Return the entry points of a group. They are read again if something was installed."""
    folders = []
    for folder in sys.path:
        with suppress(OSError):
            folders.append((folder, os.stat(folder or ".").st_mtime_ns))
    return _entry_points(group, tuple(folders))


@lru_cache(maxsize=32)
def _entry_points(group: str, _: tuple[tuple[str, int], ...]) -> Sequence[EntryPoint]:
    # To read a file of each installed package takes milliseconds, and there are nine groups.
    return tuple(metadata.entry_points(group=group))


def _announced(group: str) -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUPS[group]):
        same = found.setdefault(point.name, [])
        # The same object may be announced twice: by a checkout on sys.path and by its metadata.
        if all(point.value != other.value for other in same):
            same.append(point)
    return found


def _source(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _check_group(group: str) -> None:
    if group not in GROUPS:
        raise unknown_name("group", group, GROUPS)
