"""One event to many trackers, none of which can stop the run."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from metaloss.contracts import Event, Noticed, Tracker


class Fanout:
    """Passes events on; a tracker that fails is disconnected, and the others are told once.

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
        for name, tracker in list(self.trackers.items()):
            try:
                tracker.handle(event)
            except Exception as error:  # a stranger's tracker may fail in any way
                self._disconnect(name, tracker, error)

    def close(self) -> None:
        """Close every tracker; a failure to close is told and does no harm."""
        for name, tracker in list(self.trackers.items()):
            del self.trackers[name]
            try:
                tracker.close()
            except Exception as error:
                _say(f"tracker {name!r} could not be closed: {_line(error)}")

    def _disconnect(self, name: str, tracker: Tracker, error: Exception) -> None:
        del self.trackers[name]
        message = f"tracker {name!r} failed and was disconnected: {_line(error)}"
        try:
            tracker.close()
        except Exception as second:
            message += f" (and could not be closed: {_line(second)})"
        if self.trackers:
            self.handle(Noticed(step=self._step, message=message))
        else:
            _say(message)


def _line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _say(message: str) -> None:
    print(f"metaloss: warning: {message}", file=sys.stderr)
