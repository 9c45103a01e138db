"""What would keep torch's default process group after it was destroyed, and how it is let go.

A gloo group's threads end with the last reference to the group. A thread that is left when Python
ends, and then wants the interpreter's lock to free a tensor of the last exchange, aborts the
process ("terminate called without an active exception"), now and then on a busy machine. Two things
hold such references: default arguments of torch's own functions, and the frames of a traceback.
"""

from __future__ import annotations

import importlib
import sys
from types import TracebackType

import torch.distributed as dist

# Ten functions have ``group=group.WORLD`` as a default argument, fixed at import. Tracing a model
# imports them, which may be after the group was made.
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
    """Clear torch.distributed's frames in an error's tracebacks: their local values hold the group.

    Example:
        >>> try:
        ...     dist.get_backend("no group")
        ... except Exception as error:
        ...     found = error
        >>> release(found)
        >>> [tb.tb_frame.f_locals for tb in [found.__traceback__.tb_next]]
        [{}]
    """
    seen: set[int] = set()
    rest: list[BaseException | None] = [error]
    while rest:
        one = rest.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        rest += [one.__cause__, one.__context__]
        traceback: TracebackType | None = one.__traceback__
        while traceback is not None:
            frame = traceback.tb_frame
            if frame.f_globals.get("__name__", "").startswith("torch.distributed"):
                frame.clear()
            traceback = traceback.tb_next


_import_unbound()
