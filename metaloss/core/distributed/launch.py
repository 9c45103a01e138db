"""A run in several processes: their ranks, and what happens if one of them ends."""

from __future__ import annotations

import functools
import itertools
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from metaloss.errors import MetalossError
from metaloss.inner.processes.group_references import release
from metaloss.inner.processes.ranks import ALONE, LostRankError, Ranks, reason

# Environment variables that torchrun and similar launchers set.
_SET = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# A process waits this long for another one: longer than any evaluation or start of φ.
TIMEOUT = timedelta(minutes=10)
# How long a process waits for the reason why another one ended.
_PATIENCE = 3.0
_joins = itertools.count()


def launched() -> int:
    """Return how many processes a launcher has started; 1 without a launcher.

    Raises:
        MetalossError: If an environment variable of the launcher is not a number.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    if not all(name in os.environ for name in _SET):
        return 1
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"):
        if not os.environ[name].isdecimal():
            raise MetalossError(
                f"{name}={os.environ[name]!r}: expected an integer, as a launcher sets it"
            )
    return int(os.environ["WORLD_SIZE"])


def refuse_several(what: str, instead: str) -> None:
    """Raise if a launcher has started several processes.

    Raises:
        MetalossError: With ``instead`` as the alternative.
    """
    if launched() > 1:
        raise MetalossError(f"{what} is not possible in {launched()} processes: {instead}")


def own_device(name: str, ranks: Ranks) -> str:
    """Return the device of this process for the option ``device=name``.

    Raises:
        MetalossError: If ``name`` has a device number, or there are too few devices.
    """
    if ranks.size == 1 or name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return name
    local = int(os.environ.get("LOCAL_RANK", ranks.rank))
    if name not in ("auto", "cuda"):
        raise MetalossError(
            f"device={name}: each of {ranks.size} processes needs its own device; expected "
            "auto, cpu or cuda"
        )
    if local >= torch.cuda.device_count() > 0:
        raise MetalossError(
            f"process {local} of this machine has no CUDA device, there are only "
            f"{torch.cuda.device_count()}: start as many processes, or use device=cpu"
        )
    return f"cuda:{local}"


def present() -> Ranks:
    """Return the rank of this process in the user's process group; a single rank without a group.

    All processes must call it. The user ends the group.

    Raises:
        MetalossError: If a launcher has started several processes, but there is no group. They
            would train independently.
    """
    size = launched()
    if size == 1:
        return ALONE
    if not dist.is_initialized():
        raise MetalossError(
            f"a launcher has started {size} processes, but there is no process group: call "
            "torch.distributed.init_process_group() first (or start them without a launcher)"
        )
    return Ranks(rank=dist.get_rank(), size=size, words=_words())


def _words() -> weakref.ReferenceType[dist.ProcessGroup] | None:
    """Return a group for communication between CPUs; the default group if it supports this."""
    group = dist.group.WORLD
    assert group is not None
    if "cpu" in {device.type for device in group._device_types}:
        return None
    if group not in _others:
        other = dist.new_group(backend="gloo")
        assert isinstance(other, dist.ProcessGroup)  # all ranks are in it
        _others[group] = weakref.ref(other)
    return _others[group]


# By the default group; both end with it.
_others: weakref.WeakKeyDictionary[dist.ProcessGroup, weakref.ReferenceType[dist.ProcessGroup]] = (
    weakref.WeakKeyDictionary()
)


@contextmanager
def joined(device: str, timeout: timedelta = TIMEOUT) -> Iterator[Ranks]:
    """Yield the rank of this process among those of a launcher; a single rank without one.

    The first error or Ctrl-C is sent to the other processes. An exception that another process
    reports to the user is marked ``quiet``.

    Args:
        device: The device of the config: NCCL is used for GPUs, gloo for CPUs.
        timeout: How long one process waits for another.
    """
    size = launched()
    if size == 1:
        yield ALONE
        return
    gpus = device != "cpu" and torch.cuda.is_available()
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    store, ranks = _met(backend, size, timeout)
    try:
        yield ranks
    except BaseException as error:
        _tell(store, ranks.rank, error)
        # Ending the group informs the others at once. NCCL would wait for them, so that there the
        # process must end.
        if not gpus:
            dist.destroy_process_group(ranks.process_group())
        raise
    dist.destroy_process_group(ranks.process_group())


def _met(backend: str, size: int, timeout: timedelta) -> tuple[dist.Store, Ranks]:
    """Return a store that all processes share, and the rank of this process.

    If the user's program has a process group, a second group is made; the user's is not ended.

    Raises:
        LostRankError: If the processes cannot connect to each other.
    """
    name = f"metaloss/{next(_joins)}"
    try:
        if dist.is_initialized():
            group = dist.new_group(backend=backend, timeout=timeout)
            assert isinstance(group, dist.ProcessGroup)  # all ranks are in it
            store = dist.PrefixStore(name, dist.distributed_c10d._get_default_store())
            return store, Ranks(rank=dist.get_rank(), size=size, group=weakref.ref(group))
        rank = int(os.environ["RANK"])
        store = dist.PrefixStore(name, _store(timeout))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except (RuntimeError, ValueError, OSError) as error:
        release(error)
        raise LostRankError(
            f"rank {os.environ.get('RANK', '?')} of {size} did not find the other processes of "
            f"this run: {reason(error)}"
        ) from error
    return store, Ranks(rank=rank, size=size)


@functools.cache
def _store(timeout: timedelta) -> dist.Store:
    """Return a store that all processes share while the launcher or process 0 runs."""
    store: dist.Store = next(iter(dist.rendezvous("env://", timeout=timeout)))[0]
    return store


def _tell(store: dist.Store, rank: int, error: BaseException) -> None:
    """Store why this process ends, or read why another one did.

    Sets ``error.quiet`` if another process reports the error.
    """
    try:
        if isinstance(error, LostRankError):
            began = time.monotonic()
            while not store.check(["end"]) and time.monotonic() - began < _PATIENCE:
                time.sleep(0.05)
        known = isinstance(error, MetalossError | KeyboardInterrupt)
        said = f"{error}" if known else f"{type(error).__name__}: {error}"
        first = store.compare_set("end", "", f"{rank}\n{said}").decode()
    except RuntimeError:  # the store has ended too
        return
    other, _, said = first.partition("\n")
    if int(other) == rank:
        error.quiet = False  # type: ignore[attr-defined]
        return
    if isinstance(error, LostRankError):
        error.args = (f"rank {other} ended: {said}",)
    error.quiet = True  # type: ignore[attr-defined]
