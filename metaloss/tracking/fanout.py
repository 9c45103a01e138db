"""One event to many trackers, none of which can stop the run."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Mapping

from metaloss.contracts import Event, Noticed, Tracker


class Fanout:
    """Passes events on; a tracker that fails is disconnected, and the others are told once.

    What nobody is left to hear goes to standard error as one plain line. Only exceptions are
    held back: Ctrl-C passes through.

    Args:
        trackers: By name.

    Example:
        >>> class Broken(Tracker):
        ...     def handle(self, event):
        ...         raise OSError("disk full")
        >>> fanout = Fanout({"broken": Broken()})
        >>> fanout.handle(Noticed(step=3, message="hello"))
        >>> list(fanout.trackers)
        []
    """

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self.trackers = dict(trackers)
        self._step = 0

    def handle(self, event: Event) -> None:
        """Pass one event to every tracker that is still connected."""
        self._step = getattr(event, "step", self._step)
        self._pass_on(event)

    def close(self) -> None:
        """Close every tracker; a failure to close is told and does no harm."""
        try:
            while self.trackers:
                name, tracker = self.trackers.popitem()
                try:
                    tracker.close()
                except Exception as error:
                    self._tell(f"tracker {name!r} could not be closed: {_line(error)}")
        finally:
            # Only after Ctrl-C is anything left: the others must still let go of what they hold.
            if self.trackers:
                self.close()

    def _pass_on(self, event: Event) -> int:
        """Return the number of trackers that took the event."""
        took, failures = 0, deque[str]()
        for name, tracker in list(self.trackers.items()):
            try:
                tracker.handle(event)
                took += 1
            except Exception as error:  # a stranger's tracker may fail in any way
                failures.append(self._disconnect(name, tracker, error))
        # Told after the loop, when no tracker that has just failed is called again.
        while failures:
            self._tell(failures.popleft())
        return took

    def _disconnect(self, name: str, tracker: Tracker, error: Exception) -> str:
        del self.trackers[name]
        message = f"tracker {name!r} failed and was disconnected: {_line(error)}"
        try:
            tracker.close()
        except Exception as second:
            message += f" (and could not be closed: {_line(second)})"
        return message

    def _tell(self, message: str) -> None:
        if not self._pass_on(Noticed(step=self._step, message=message)):
            # Where even standard error is gone, nobody can be told; the run goes on.
            with contextlib.suppress(Exception):
                print(f"metaloss: warning: {message}", file=sys.stderr)


def _line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
