"""Reuse of memory that a step on the CPU frees."""

from __future__ import annotations

import ctypes
import os
import sys

# malloc.h of glibc
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MOST_KEPT = 2**31 - 1  # bytes: the largest int
# The largest value of glibc's own adaptive threshold. Larger blocks are returned at once: keeping
# them would fragment the memory.
_LARGEST_KEPT = 32 * 2**20
_OWN_CHOICE = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")
_OWN_TUNABLES = ("malloc.trim_threshold", "malloc.mmap_threshold", "malloc.top_pad")


def keep_freed_memory() -> bool:
    """Keep memory that a step on the CPU frees, so that the next step can use it again.

    By default, Linux's allocator returns the memory of large blocks to the system when they are
    freed. The next step then requests it again, and the system clears every page. This takes up to
    a third of the time of an eager step. After this call, the process keeps up to 2 GB of freed
    memory until it ends. The setting holds for the whole process. ``metaloss train`` makes this
    call; your own program may do so too.

    If you set one of glibc's environment variables (such as ``MALLOC_TRIM_THRESHOLD_=131072``, its
    default), nothing is changed.

    Returns:
        Whether the setting was made. It is not where the C library is not glibc.

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
    # Setting either of the two switches off the adaptive choice of both.
    return bool(
        mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT) and mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
    )
