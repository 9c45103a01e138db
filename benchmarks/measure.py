"""Seconds and memory of things that are called again and again."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """The median of a call's rounds, and its quartiles."""

    median: float
    low: float
    high: float


def in_turns(calls: Mapping[str, Call], *, rounds: int, repeat: int = 1) -> dict[str, Seconds]:
    """Return the seconds of each call: all take turns, so that a busy moment hits them alike.

    Args:
        calls: By name; each has been warmed up.
        rounds: How many turns.
        repeat: Calls of a turn; the seconds are those of one.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            wait()
            began = time.perf_counter()
            for _ in range(repeat):
                call()
            wait()
            found[name].append((time.perf_counter() - began) / repeat)
    return {name: _seconds(values) for name, values in found.items()}


def peak_bytes(call: Call, *, calls: int = 3) -> int:
    """Return how much memory a call takes at its peak, above what lies there between two calls.

    On the CPU from the process's own resident memory, after what is free was given back.
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        for _ in range(calls):
            call()
        wait()
        return torch.cuda.max_memory_allocated() - before
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = _status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the highest resident memory so far is forgotten
    for _ in range(calls):
        call()
    return _status("VmHWM") - before


def resident_bytes() -> int:
    """Return the memory of this process: a GPU's in tensors, else what is resident."""
    if torch.cuda.is_available():
        wait()
        return torch.cuda.memory_allocated()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return _status("VmRSS")


def wait() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(name))
    return int(line.split()[1]) * 1024


def _seconds(values: list[float]) -> Seconds:
    if len(values) < 2:
        return Seconds(median=values[0], low=values[0], high=values[0])
    low, _, high = statistics.quantiles(values, n=4)
    return Seconds(median=statistics.median(values), low=low, high=high)
