"""Functions called on Ray: on this machine, or on a cluster whose nodes share a file system."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaloss.core.search.ray_cluster import connected, lost_errors
from metaloss.errors import MetalossError

# An interrupted task writes its checkpoint, for which a run has 30 seconds.
_STOP_SECONDS = 45.0
# What a worker must know before it imports anything: the files of --plugin.
_VARIABLES = "METALOSS_"


class LostError(MetalossError):
    """A task's worker died: out of memory, or its node is gone."""


class StoppedError(MetalossError):
    """A task was interrupted, or never begun."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which Ray, and what each task takes of it: the options of ``hydra/launcher=ray``.

    Attributes:
        address: Of a cluster: ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``; None: what the
            environment variable RAY_ADDRESS or this machine has, else a new Ray on this machine.
        num_cpus: CPUs of each task, and its threads; positive.
        num_gpus: GPUs of each task; those of others are hidden from it.
    """

    address: str | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, holds, expected in (
            ("num_cpus", self.num_cpus > 0, "a positive number"),
            ("num_gpus", self.num_gpus >= 0, "a number ≥ 0"),
        ):
            if not holds:
                raise MetalossError(
                    f"hydra.launcher.{name}={getattr(self, name)}: expected {expected}"
                )


@dataclass(frozen=True)
class Place:
    """Where the process that asks is, for workers that were begun elsewhere.

    Example:
        >>> Place().folder == Path.cwd()
        True
    """

    folder: Path = field(default_factory=Path.cwd)
    variables: Mapping[str, str] = field(
        default_factory=lambda: {k: v for k, v in os.environ.items() if k.startswith(_VARIABLES)}
    )

    def enter(self, shared: Path) -> None:
        """Make this process one of that place.

        Args:
            shared: A folder that the process that asks has made.

        Raises:
            MetalossError: If this node does not see what that process sees.
        """
        for folder in (self.folder, shared):
            if not folder.is_dir():
                raise MetalossError(
                    f"{folder} is not on the node {socket.gethostname()}: the nodes of a Ray "
                    "cluster need a file system that they share"
                )
        os.chdir(self.folder)
        os.environ.update(self.variables)
        if threading.current_thread() is threading.main_thread():
            # Ray interrupts a task by this handler, which is not there if Ray was begun in the
            # background of a script.
            signal.signal(signal.SIGINT, signal.default_int_handler)


class Tasks:
    """Calls functions as Ray tasks, from any thread. Close it in the end.

    Raises:
        MetalossError: If no cluster answers, or this machine is too small for any task.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        with ExitStack() as opened:
            self._ray = opened.enter_context(connected(asked.address, "hydra.launcher.address"))
            self._total: Mapping[str, float] = self._ray.cluster_resources()
            self._check_room()
            try:
                # Not retried: what a task has written would be in the way of a second one.
                self._remote = self._ray.remote(
                    num_cpus=asked.num_cpus, num_gpus=asked.num_gpus, max_retries=0
                )
            except ValueError as error:
                raise MetalossError(f"hydra.launcher: {str(error).splitlines()[0]}") from error
            self._stack = opened.pop_all()
        self._unfinished: set[Any] = set()
        self._stopped = False

    @property
    def room(self) -> int:
        """How many tasks fit at once into what the cluster has now; at least 1."""
        rooms = [self._total.get("CPU", 0) / self._asked.num_cpus]
        if self._asked.num_gpus:
            rooms.append(self._total.get("GPU", 0) / self._asked.num_gpus)
        return max(1, int(min(rooms)))

    def put(self, value: Any) -> Any:
        """Return a reference to a value, which goes to every node once."""
        return self._ray.put(value)

    def begin(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Begin a call; return a reference to its result.

        Raises:
            StoppedError: If these tasks were stopped.
        """
        if self._stopped:
            raise StoppedError("stopped")
        reference = self._remote(function).remote(*arguments)
        self._unfinished.add(reference)
        if self._stopped:  # meanwhile, by another thread
            self._ray.cancel(reference)
        return reference

    def ended(self, references: Sequence[Any]) -> Sequence[Any]:
        """Return those that have ended, after a short wait that lets Ctrl-C through."""
        return list(self._ray.wait(list(references), timeout=0.5)[0])

    def result(self, reference: Any) -> Any:
        """Wait for a call; return what it returned.

        Raises:
            StoppedError: If it was interrupted.
            LostError: If its worker died.
            Exception: What the call itself raised.
        """
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.TaskCancelledError as error:
            raise StoppedError("stopped") from error
        except errors.RayTaskError as error:
            raise error.cause from error
        except lost_errors(self._ray) as error:
            raise LostError(f"its worker was lost ({type(error).__name__})") from error
        finally:
            self._unfinished.discard(reference)

    def stop(self) -> None:
        """Interrupt what runs, as Ctrl-C does, and wait for it. Begin nothing more."""
        self._stopped = True
        left = list(self._unfinished)
        self._unfinished.difference_update(left)  # Ray may die of being asked twice
        for reference in left:
            self._ray.cancel(reference)
        try:
            if left:
                _, left = self._ray.wait(left, num_returns=len(left), timeout=_STOP_SECONDS)
        finally:  # also after a second Ctrl-C
            for reference in left:
                self._ray.cancel(reference, force=True)

    def close(self) -> None:
        """Stop, and leave Ray; one that was begun here ends."""
        self.stop()
        self._stack.close()

    def _check_room(self) -> None:
        """Raise if no task can ever begin. Ray would wait: a cluster may grow, a machine cannot."""
        if self._asked.address not in (None, "local") or "RAY_ADDRESS" in os.environ:
            return
        wanted = {"CPU": self._asked.num_cpus, "GPU": self._asked.num_gpus}
        for kind, number in wanted.items():
            if number > self._total.get(kind, 0):
                raise MetalossError(
                    f"each task asks for {number:g} {kind}s, and Ray has "
                    f"{self._total.get(kind, 0):g} on this machine"
                )
