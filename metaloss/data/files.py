"""Errors about missing and damaged files, in one line."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from metaloss.errors import MetalossError, first_line

T = TypeVar("T")


class DataWarning(UserWarning):
    """A warning about data, in one line."""


def warn(message: str) -> None:
    """Warn in one line."""
    # With a source line, Python would print that line of code after the warning.
    warnings.warn_explicit(message, DataWarning, "metaloss", 0)


def found(root: Path, name: str, suffixes: Sequence[str]) -> Path | None:
    """Return the path of a file with the first suffix that exists; None if there is none."""
    paths = [root / f"{name}{suffix}" for suffix in suffixes]
    return next((path for path in paths if path.is_file()), None)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Replace any exception while a file is read by one line with its name."""
    try:
        yield
    except MetalossError:
        raise
    # A parser may raise anything for a damaged file.
    except Exception as error:
        raise MetalossError(f"{path}: cannot be read: {first_line(error)}") from error


def download(task: str, fetch: Callable[[], T], *, by_hand: str) -> T:
    """Return the result of a download; if it fails, raise one line that says what to do by hand."""
    try:
        return fetch()
    except Exception as error:
        raise MetalossError(
            f"task={task}, task.download=true: {first_line(error)}; without a network {by_hand}"
        ) from error
