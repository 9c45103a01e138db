"""Options that are paths are made absolute, so that a config works in any folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_NAMES = ("path", "root", "folder", "source", "file", "trusted", "test", "weights")


def is_path(name: str) -> bool:
    """Return whether an option of this name is a path.

    Example:
        >>> [is_path(name) for name in ("path", "train_path", "width")]
        [True, True, False]
    """
    return name.rpartition(".")[2].rpartition("_")[2] in _NAMES


def with_absolute_paths(options: T) -> T:
    """Return a part's options with absolute paths.

    Empty paths, and paths of files that do not exist, are not changed.
    """
    if not dataclasses.is_dataclass(options) or isinstance(options, type):
        return options
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.init and isinstance(value, str | Path) and str(value) and is_path(field.name):
            absolute = absolute_path(str(value))
            if absolute != str(value):
                changes[field.name] = type(value)(absolute)
    return dataclasses.replace(options, **changes) if changes else options


def absolute_path(path: str) -> str:
    """Return the absolute path of an existing file; any other path unchanged."""
    try:
        found = Path(path).expanduser().absolute()
        return str(found) if found.exists() else path
    except (OSError, RuntimeError, ValueError):  # an unknown home, a name that is too long
        return path
