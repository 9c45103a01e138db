"""Removal of references to a destroyed process group.

The threads of a gloo group end with the last reference to the group. If a thread is left when
Python ends and frees a tensor, it may abort the process ("terminate called without an active
exception"). Such references are in default arguments of torch's own functions, and in the frames of
a traceback.
"""

from __future__ import annotations

import importlib
import sys
import traceback

import torch.distributed as dist

from metaloss.inner.dispatch import causes

# Ten functions have the default argument ``group=group.WORLD``, which is evaluated at import.
# Tracing a model imports them, perhaps after the group was made.
_BINDS = "torch.distributed.nn.functional"


def _import_unbound() -> None:
    if not dist.is_available() or _BINDS in sys.modules:
        return
    group, dist.GroupMember.WORLD = dist.GroupMember.WORLD, None
    try:
        importlib.import_module(_BINDS)
    finally:
        dist.GroupMember.WORLD = group


def release(error: BaseException) -> None:
    """Clear torch.distributed's frames in an error's tracebacks, whose local values have the group.

    Example:
        >>> try:
        ...     dist.get_backend("no group")
        ... except Exception as error:
        ...     found = error
        >>> release(found)
        >>> [tb.tb_frame.f_locals for tb in [found.__traceback__.tb_next]]
        [{}]
    """
    for one in causes(error):
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if frame.f_globals.get("__name__", "").startswith("torch.distributed"):
                frame.clear()


_import_unbound()
