"""Ctrl-C, taken between two segments, where the state is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupt:
    """While entered, the first Ctrl-C (or SIGTERM) is only remembered; a second one acts at once.

    One of each is no second one: who ends a whole group of processes may reach a run twice, by
    itself and by way of the process that began it.

    Outside of the main thread, where Python allows no signal handlers, nothing is caught.

    Args:
        anywhere: Asks all processes of a run whether one of them was interrupted.
    """

    def __init__(self, anywhere: Callable[[bool], bool] = bool) -> None:
        self.asked = False
        self._anywhere = anywhere
        self._before: dict[int, Any] = {}
        self._received: set[int] = set()

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

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
