"""What PyTorch keeps once for a whole process: one thread at a time changes it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.RLock()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let one thread of the process into such blocks at a time.

    PyTorch counts the levels of forward mode once for all threads: two threads in forward mode get
    errors, or wrong numbers without an error. The global random generators are shared as well:
    what one thread seeds, another would draw from.

    Example:
        >>> with one_thread(), one_thread():  # a thread does not wait for itself
        ...     2 + 2
        4
    """
    with _lock:
        yield


def _new_lock() -> None:
    global _lock
    _lock = threading.RLock()


# A thread that is not in the child may have held the lock.
os.register_at_fork(after_in_child=_new_lock)
