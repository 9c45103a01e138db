"""What happens to memory that one step frees and the next one takes."""

from __future__ import annotations

import ctypes
import os
import sys

# malloc.h of glibc
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MOST_KEPT = 2**31 - 1  # bytes: what the parameter, an int, can say
# As far as glibc's own threshold ever grows. Larger blocks go back at once: kept, a few of them
# would leave large holes.
_LARGEST_KEPT = 32 * 2**20
_OWN_CHOICE = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")
_OWN_TUNABLES = ("malloc.trim_threshold", "malloc.mmap_threshold", "malloc.top_pad")


def keep_freed_memory() -> bool:
    """Let this process keep memory that a step on the CPU frees, for the next step to take.

    Linux's allocator gives the memory of large blocks back to the system as they are freed. The
    next step maps it in again, a page at a time, and the system clears every page: up to a third of
    an eager step. Kept, the process holds until its end what its largest step took, up to 2 GB of
    it. ``metaloss train`` does this at its start; a program of your own may, for itself: it is a
    setting of the whole process.

    Whoever has chosen otherwise by glibc's environment variables (``MALLOC_TRIM_THRESHOLD_=131072``
    is its own default) keeps that choice.

    Returns:
        Whether the C library took the setting; False where it is not glibc. An allocator that was
        loaded in its place goes its own way.

    Reference:
        ``man 3 mallopt``.

    Example:
        >>> type(keep_freed_memory())
        <class 'bool'>
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if any(name in os.environ for name in _OWN_CHOICE) or any(
        name in tunables for name in _OWN_TUNABLES
    ):
        return False
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Setting either one ends the allocator's own adaptation of both.
    return bool(
        mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT) and mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
    )
