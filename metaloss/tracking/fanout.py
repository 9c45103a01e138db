"""Passes each event to all trackers. An error in one of them does not stop the run."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Mapping

from metaloss.contracts import Event, Noticed, Tracker


class Fanout:
    """Passes events on to trackers, by name. One that raises is disconnected, with one warning.

    The other trackers receive the warning. If there are none, it is printed to standard error.
    Ctrl-C is not caught.

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
        """Close every tracker. An error becomes a warning."""
        try:
            while self.trackers:
                name, tracker = self.trackers.popitem()
                try:
                    tracker.close()
                except Exception as error:
                    self._tell(f"tracker {name!r} could not be closed: {_line(error)}")
        finally:
            # After Ctrl-C some are left; they must be closed too.
            if self.trackers:
                self.close()

    def _pass_on(self, event: Event) -> int:
        """Return the number of trackers that took the event."""
        took, failures = 0, deque[str]()
        for name, tracker in list(self.trackers.items()):
            try:
                tracker.handle(event)
                took += 1
            except Exception as error:  # a tracker may raise anything
                failures.append(self._disconnect(name, tracker, error))
        # Reported after the loop, so that no tracker that has just failed is called again.
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
            # Standard error may be closed; the run goes on.
            with contextlib.suppress(Exception):
                print(f"metaloss: warning: {message}", file=sys.stderr)


def _line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
