"""Ctrl-C between two segments, when the state is complete."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Signals that ask a program to end. Clusters send the last three before they stop a machine; a
# terminal sends SIGHUP when it is closed.
ENDING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)  # Windows has the first two
)
_ALWAYS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Inside the block, the first Ctrl-C (or other signal of `ENDING`) is only stored.

    A second signal of the same kind acts at once. A signal of another kind is not a second one: if
    a group of processes is ended, a run may receive one directly and one from its parent process.

    Nothing is caught outside of the main thread, where Python allows no signal handlers. Signals
    that the program ignores (``nohup``) or handles itself (SIGHUP and SIGUSR1) are not caught.

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
        """Return whether any process of the run got a signal. All must call it at the same step."""
        self.asked = self._anywhere(self.asked)
        return self.asked

    def check(self, hint: str) -> None:
        """Raise KeyboardInterrupt with a message how to continue, if there was a signal."""
        if self.asked:
            raise KeyboardInterrupt(hint)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number in self._received:
            raise KeyboardInterrupt
        self._received.add(number)
        self.asked = True


@contextmanager
def endings_as_ctrl_c() -> Iterator[None]:
    """Inside the block, raise KeyboardInterrupt at any signal of `ENDING`, as at Ctrl-C.

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
    """Set a handler for the signals of `ENDING`; return the previous handlers."""
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
