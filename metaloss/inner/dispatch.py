"""PyTorch's dispatcher after an error."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def dispatch_kept() -> Iterator[None]:
    """Leave the dispatcher of this thread as it was, also if the code inside raises an error.

    Some functions of PyTorch hold a guard in a local variable: made at the call, it restores the
    dispatcher when it is deleted. After an error it lives as long as the traceback, and
    then it restores a state in which tracing and forward mode were active. From then on, tensor
    subclasses fail in this thread. Here the local variables are deleted first.

    Example:
        >>> with dispatch_kept():
        ...     torch.func.jvp(torch.sin, (torch.zeros(2),), (torch.ones(2),))[1]
        tensor([1., 1.])
    """
    included = torch._C._dispatch_tls_local_include_set()
    excluded = torch._C._dispatch_tls_local_exclude_set()
    with torch._C._ForceDispatchKeyGuard(included, excluded):
        try:
            yield
        except BaseException as error:  # Ctrl-C too
            _clear(error)
            raise


def _clear(error: BaseException) -> None:
    for one in causes(error):
        traceback.clear_frames(one.__traceback__)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and all errors that led to it, once each."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            left += [one.__cause__, one.__context__]
