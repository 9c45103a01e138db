"""Random generators that a model may use: seeded for a pass, and restored after it.

These are the global generators of torch, numpy and Python, and generators in attributes of the
model.
"""

from __future__ import annotations

import ctypes
import functools
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from metaloss.inner.keys import derive
from metaloss.inner.one_thread import one_thread


@dataclass(frozen=True)
class Source:
    """A random generator.

    Attributes:
        name: A name to show.
        get: Returns the state.
        set: Restores a state.
        seed: Seeds the generator with a 63-bit number.
    """

    name: str
    get: Callable[[], Any]
    set: Callable[[Any], Any]
    seed: Callable[[int], Any]


def sources(modules: Iterable[nn.Module]) -> list[Source]:
    """Return all generators that a model of these modules may use."""
    found = [
        Source("torch's global generator", _torch_get, _torch_set, _torch_seed),
        # The global generator of numpy has no other interface.
        Source("numpy", np.random.get_state, np.random.set_state, _numpy_seed),
        Source("random", random.getstate, random.setstate, random.seed),
    ]
    seen: dict[int, Any] = {}
    for part in modules:
        for value in vars(part).values():
            seen[id(value)] = value
    return found + [source for value in seen.values() if (source := _own(value)) is not None]


@contextmanager
def seeded(used: Sequence[Source], seed: int) -> Iterator[None]:
    """Seed generators by ``seed`` (63 bits), and restore them at the end."""
    with one_thread():
        before = [source.get() for source in used]
        try:
            for number, source in enumerate(used):
                source.seed(derive(seed, "foreign", number) if number else seed)
            yield
        finally:
            for source, state in zip(used, before, strict=True):
                source.set(state)


def glance() -> tuple[int, ...]:
    """Return numbers that change when numpy's or Python's global generator draws.

    This is called in every pass, and to read a whole state takes 0.1 ms. So only the position in
    the Mersenne twister's 624 words is read, with the word beside it, directly from memory.
    """
    return tuple(cell.value for cell in _cells())


@functools.cache
def _cells() -> list[ctypes.c_uint64]:
    """Return the memory that `glance` reads; without generators of an unknown layout."""
    if sys.implementation.name != "cpython":
        return []
    # The layout: a header, the position (32 bits), the words.
    one = random._inst
    cell = ctypes.c_uint64.from_address(id(one) + object.__basicsize__)
    found = [cell] if cell.value & 0xFFFFFFFF == one.getstate()[1][-1] else []
    bits = np.random.mtrand._rand._bit_generator
    if isinstance(bits, np.random.MT19937):
        # The layout: the words, the position. `state_address` is numpy's public interface.
        cell = ctypes.c_uint64.from_address(bits.ctypes.state_address + 4 * 623)
        found += [cell] if cell.value >> 32 == bits.state["state"]["pos"] else []
    return found


def drawn_from(used: list[Source], before: list[Any]) -> list[Source]:
    """Return the generators whose state has changed."""
    return [
        source for source, state in zip(used, before, strict=True) if not _same(source.get(), state)
    ]


def _own(value: Any) -> Source | None:
    """Return the generator in an attribute; None if it is not one."""
    if isinstance(value, torch.Generator):
        return Source("a torch.Generator", value.get_state, value.set_state, value.manual_seed)
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator

        def put(state: Any) -> None:
            bits.state = state

        def begin(seed: int) -> None:
            bits.state = type(bits)(seed).state

        return Source("a numpy generator", lambda: bits.state, put, begin)
    if isinstance(value, np.random.RandomState):
        old = value
        return Source(
            "a numpy RandomState", old.get_state, old.set_state, lambda seed: old.seed(seed % 2**32)
        )
    if isinstance(value, random.Random):
        return Source("a random.Random", value.getstate, value.setstate, value.seed)
    return None


def _numpy_seed(seed: int) -> None:
    np.random.seed(seed % 2**32)  # noqa: NPY002


def _torch_get() -> list[torch.Tensor]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(index) for index in devices)]


def _torch_set(states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    for index, state in enumerate(states[1:]):
        torch.cuda.set_rng_state(state, index)


def _torch_seed(seed: int) -> None:
    # Where CUDA has not begun, torch.manual_seed writes down who called: half a millisecond in a
    # deep stack, four hundred times as long as to seed.
    begun = torch.cuda.is_initialized()
    (torch.manual_seed if begun else torch.default_generator.manual_seed)(seed)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
