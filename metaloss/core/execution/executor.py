"""What calls functions in other processes: the contract, and how an executor is found by name.

Searches, ``metaloss compare`` and ``--multirun`` share it. `Processes` is the built-in one, on
this machine; others come in through entry points.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from metaloss.errors import MetalossError, unknown_name
from metaloss.options import Options
from metaloss.registry import entry_points

# The entry point group where distributions announce the options of their executors.
GROUP = "metaloss.executors"
# Which plugin has an executor that is known by name, but may not be installed.
_PLUGINS = {"ray": "metaloss-ray"}

T = TypeVar("T")


class LostError(MetalossError):
    """The process of a call died: killed, out of memory, or its machine is gone."""


class StoppedError(MetalossError):
    """A call was interrupted, or never begun."""


class Executor(ABC):
    """Calls functions in other processes, from any thread. A ``with`` statement stops it.

    Attributes:
        room: How many calls run at once; at least 1.
    """

    room: int

    @abstractmethod
    def submit(self, function: Callable[..., T], *arguments: object) -> Future[T]:
        """Call a function in another process; return at once.

        Args:
            function: What can be imported there.
            arguments: What can be pickled.

        Returns:
            The future result. It raises what the function raised, a `LostError` if the process
            died, or a `StoppedError` if the call was interrupted.

        Raises:
            StoppedError: If the executor was stopped.
        """

    @abstractmethod
    def stop(self) -> None:
        """Interrupt what runs, as Ctrl-C does, and wait for it. Begin nothing more."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class ExecutorOptions(Options, ABC, group="hydra.launcher"):
    """The options of an executor: a frozen, keyword-only dataclass, announced by an entry point.

    Its fields are what ``hydra.launcher.NAME=VALUE`` sets.
    """

    @abstractmethod
    def open(self, *, threads: int | None = None, keep: bool = True) -> Executor:
        """Return the executor.

        Args:
            threads: Threads of each call; None: as the options say.
            keep: Whether a process may serve one call after another.

        Raises:
            MetalossError: If it cannot be reached.
        """


def names() -> list[str]:
    """Return the names of all executors, sorted: those that are installed, and ``ray``."""
    return sorted({*_PLUGINS, *(point.name for point in entry_points(group=GROUP))})


def find(name: str, word: str) -> type[ExecutorOptions]:
    """Return an executor's options class; ``word`` is what the user wrote, for errors.

    Raises:
        MetalossError: If there is none of that name, or its plugin fails to load.
    """
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        plugin = _PLUGINS.get(name)
        if plugin is None:
            raise MetalossError(f"{word}: {unknown_name('executor', name, names())}")
        raise MetalossError(
            f"{word} needs the plugin {plugin}: pip install {plugin} (from a checkout: "
            f"pip install ./plugins/{plugin})"
        )
    try:
        return points[name].load()
    except Exception as error:  # a stranger's import may fail in any way
        raise MetalossError(f"{word} failed to load: {type(error).__name__}: {error}") from error


def require_folder(folder: Path) -> None:
    """Raise a MetalossError if this machine does not see a folder that was made elsewhere."""
    if not folder.is_dir():
        raise MetalossError(
            f"{folder} is not on the machine {socket.gethostname()}: all machines that train need "
            "a file system that they share"
        )
