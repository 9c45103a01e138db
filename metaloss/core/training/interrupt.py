"""Ctrl-C, taken between two segments, where the state is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

# What asks a program to end. Clusters send the last three before they take a machine away; a
# terminal that is closed sends SIGHUP.
ENDING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)  # Windows has the first two
)
_ALWAYS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """While entered, the first Ctrl-C (or another of `ENDING`) is only remembered.

    A second signal of the same kind acts at once. One of another kind does not count as a second:
    if a whole group of processes is ended, a run may receive one directly and one from the process
    that began it.

    Outside of the main thread, where Python allows no signal handlers, nothing is caught; nor is
    what the program ignores (``nohup``) or has a handler of its own for (SIGHUP and SIGUSR1).

    Args:
        anywhere: Asks all processes of a run whether one of them was interrupted.
    """

    def __init__(self, anywhere: Callable[[bool], bool] = bool) -> None:
        self.asked = False
        self._anywhere = anywhere
        self._before: dict[int, Any] = {}
        self._received: set[int] = set()

    def __enter__(self) -> Interrupt:
        self._before = _caught(self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        _put_back(self._before)

    def heard(self) -> bool:
        """Return whether any process of the run was asked to stop; all ask at the same step."""
        self.asked = self._anywhere(self.asked)
        return self.asked

    def check(self, hint: str) -> None:
        """Raise KeyboardInterrupt, saying how to go on, if it was asked for."""
        if self.asked:
            raise KeyboardInterrupt(hint)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number in self._received:
            raise KeyboardInterrupt
        self._received.add(number)
        self.asked = True


@contextmanager
def endings_as_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt at any of `ENDING` while the block lasts, as Ctrl-C does anyway.

    Example:
        >>> with endings_as_ctrl_c():
        ...     try:
        ...         signal.raise_signal(signal.SIGTERM)
        ...     except KeyboardInterrupt:
        ...         print("stopped")
        stopped
    """
    before = _caught(_interrupt, ENDING[1:])
    try:
        yield
    finally:
        _put_back(before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _caught(
    handler: Callable[[int, FrameType | None], None], numbers: Sequence[int] = ENDING
) -> dict[int, Any]:
    """Set a handler for what asks a program to end; return the handlers before."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    free = (signal.SIG_DFL, _interrupt)
    return {
        number: signal.signal(number, handler)
        for number in numbers
        if number in _ALWAYS or signal.getsignal(number) in free
    }


def _put_back(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
