"""Deterministic algorithms and TF32, which PyTorch keeps once for a whole process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from metaloss.errors import MetalossError


class _Flags(NamedTuple):
    """torch's mode of deterministic algorithms, and the precisions of products and convolutions."""

    mode: int  # 0: any algorithm, 1: a warning for those that are not deterministic, 2: an error
    precisions: tuple[str, ...]


class _Block(NamedTuple):
    thread: int
    flags: _Flags


_lock = threading.Lock()
_open: list[_Block] = []  # the blocks that threads are in, in the order of their begin
_outside = _Flags(0, ())  # the flags before the first of them


@contextmanager
def numerics(*, deterministic: bool, tf32: bool | None) -> Iterator[None]:
    """Set deterministic algorithms and TF32 of torch inside the block.

    Threads may be in such blocks at the same time if all of them have the same flags.

    Args:
        deterministic: Whether to refuse other algorithms; false: as it is outside.
        tf32: Whether to use TF32; None: as it is outside.

    Raises:
        MetalossError: If another thread is in a block with other flags.
    """
    block = _entered(deterministic, tf32)
    try:
        yield
    finally:
        _left(block)


def _entered(deterministic: bool, tf32: bool | None) -> _Block:
    global _outside
    thread = threading.get_ident()
    with _lock:
        if not _open:
            _outside = _read()
        before = _flags_of(thread)
        precision = "tf32" if tf32 else "ieee"
        flags = _Flags(
            2 if deterministic else before.mode,
            before.precisions if tf32 is None else (precision,) * len(_products()),
        )
        others = [one.flags for one in _open if one.thread != thread]
        if any(one != flags for one in others):
            raise MetalossError(
                f"deterministic={str(deterministic).lower()}, tf32={_word(tf32)}: another thread "
                "computes with other settings, which PyTorch has once for all threads: expected "
                "the same settings, one after the other, or a process for each"
            )
        block = _Block(thread, flags)
        _open.append(block)
        _set(flags)
        return block


def _left(block: _Block) -> None:
    with _lock:
        # From the end: a thread leaves its innermost block first.
        place = next(n for n in reversed(range(len(_open))) if _open[n] is block)
        del _open[place]
        # If several threads are left, their flags are equal.
        _set(_open[-1].flags if _open else _outside)


def _flags_of(thread: int) -> _Flags:
    """Return the flags of the innermost block of a thread; those outside, if it is in none."""
    own = [one.flags for one in _open if one.thread == thread]
    return own[-1] if own else _outside


def _products() -> tuple[Any, ...]:
    return torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]


def _read() -> _Flags:
    precisions = tuple(one.fp32_precision for one in _products())
    return _Flags(torch.get_deterministic_debug_mode(), precisions)


def _set(flags: _Flags) -> None:
    if flags.mode != torch.get_deterministic_debug_mode():
        torch.use_deterministic_algorithms(flags.mode > 0, warn_only=flags.mode == 1)
    for one, precision in zip(_products(), flags.precisions, strict=True):
        if one.fp32_precision != precision:
            one.fp32_precision = precision


def _word(tf32: bool | None) -> str:
    return "null" if tf32 is None else str(tf32).lower()


def _only_this_thread() -> None:
    global _lock
    _lock = threading.Lock()
    _open[:] = [one for one in _open if one.thread == threading.get_ident()]


# The other threads are not in the child.
os.register_at_fork(after_in_child=_only_this_thread)
