"""Files that are not there, or not what they should be: one line that says what to do."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from metaloss.errors import MetalossError

T = TypeVar("T")


class DataWarning(UserWarning):
    """What people should know about their data; one line."""


def warn(message: str) -> None:
    """Warn in one line."""
    # With a place in the source the warning would be followed by a line of this project's code.
    warnings.warn_explicit(message, DataWarning, "metaloss", 0)


def found(root: Path, name: str, suffixes: Sequence[str]) -> Path | None:
    """Return where a file is, with the first suffix that it is found with; None if it is not."""
    paths = [root / f"{name}{suffix}" for suffix in suffixes]
    return next((path for path in paths if path.is_file()), None)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into one line that names it."""
    try:
        yield
    except MetalossError:
        raise
    # A damaged file can make a parser fail in any way.
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise MetalossError(f"{path}: cannot be read: {reason}") from error


def download(task: str, fetch: Callable[[], T], *, by_hand: str) -> T:
    """Return what a download returns; raise in one line if it fails.

    Args:
        task: For the message.
        fetch: The download.
        by_hand: What to do without a network, for the message.
    """
    try:
        return fetch()
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise MetalossError(
            f"task={task}, task.download=true: {reason}; without a network {by_hand}"
        ) from error
