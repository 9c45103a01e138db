"""Random numbers that depend only on the run's seed, a purpose and a step.

These three give a key. A key gives a generator (batches, weights) or, on the device and inside
compiled or vmapped code, uniform numbers (dropout masks). So a resumed run draws the same numbers
as an uninterrupted one, and no generator state has to be stored.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_LOW_32 = 0xFFFFFFFF
_LARGEST = 2**63 - 1
_STEP = 0x9E3779B97F4A7C15  # 2⁶⁴ over the golden ratio: neighbours differ in all bits
_ROWS = 2**31  # a salt of its own: those of dropout are below it


def derive(seed: int, purpose: str, *indices: int) -> int:
    """Return a 63-bit key for a purpose, such as ``derive(0, "batches", epoch)``."""
    text = f"{seed}/{purpose}/{'/'.join(map(str, indices))}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *indices: int) -> torch.Generator:
    """Return a CPU generator for a purpose; the same arguments give the same draws."""
    return torch.Generator().manual_seed(derive(seed, purpose, *indices))


def key_tensor(seed: int, purpose: str, *indices: int, device: torch.device | str) -> Tensor:
    """Return a key as a 0-d int64 tensor on the device, without a host sync."""
    return torch.full((), derive(seed, purpose, *indices), dtype=torch.int64, device=device)


def nth_key(key: Tensor, number: int) -> Tensor:
    """Return a further key (0-d int64) for a part of what a key is for; number 0 is the key itself.

    Example:
        >>> key = torch.tensor(5)
        >>> int(nth_key(key, 0)), int(nth_key(key, 1)) == int(nth_key(key, 2))
        (5, False)
    """
    return (key + (number * _STEP) % _LARGEST) & _LARGEST if number else key


def uniform(
    key: Tensor, salt: int, shape: torch.Size, first: int = 0, rows: Tensor | None = None
) -> Tensor:
    """Return float32 numbers in [0, 1) that depend only on (key, salt, position).

    This is a counter-based generator in integer arithmetic. Eager, compiled and vmapped code on CPU
    and CUDA gives the same numbers.

    Args:
        key: 0-d int64.
        salt: Distinguishes several draws with one key.
        shape: The shape of the result.
        first: The position of the first number.
        rows: (shape[0],) int64 row numbers of a larger tensor, instead of ``first``.
    """
    if rows is None:
        position = torch.arange(first, first + shape.numel(), device=key.device)
    else:
        size = shape.numel() // shape[0]
        within = torch.arange(size, device=key.device)
        position = (rows.unsqueeze(1) * size + within).reshape(-1)
    mixed = _mix((key & _LOW_32) ^ _mix(position.new_full((), salt + 1)))
    mixed = _mix(position ^ mixed)
    mixed = _mix(mixed ^ (key >> 32))
    return ((mixed >> 8).to(torch.float32) * 2.0**-24).reshape(shape)


def sampled_rows(key: Tensor, share: float, total: int) -> Tensor:
    """Return the (M,) numbers of a block of M = share · total rows that begins anywhere.

    A block that reaches the end goes on at the beginning, so that each row is equally likely.
    """
    count = sampled_count(share, total)
    first = (uniform(key, _ROWS, torch.Size((1,))).double() * total).long()
    return (first + torch.arange(count, device=key.device)) % total


def sampled_count(share: float, total: int) -> int:
    """Return M, the number of rows of a share of ``total`` rows: at least one."""
    return min(max(round(share * total), 1), total)


def _mix(x: Tensor) -> Tensor:
    """Hash 32 bits: xor-shift-multiply rounds with the "lowbias32" constants of C. Wellons."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _LOW_32
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _LOW_32
    return x ^ (x >> 16)
