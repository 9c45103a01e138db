"""How a process leaves the others: what of their conversation is still alive then."""

import contextlib
import importlib
from pathlib import Path

import torch
import torch.distributed as dist

from metaloss.core.distributed.launch import joined
from metaloss.errors import MetalossError


def _threads():
    """Return the names of this process's threads: Python knows only of its own."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


def _of_gloo():
    return [name for name in _threads() if "gloo" in name]


def in_peace(folder):
    """Gloo's threads while the processes talk, and after it."""
    with joined("cpu") as ranks:
        ranks.summed([torch.ones(3)])
        # Tracing a model imports this one.
        importlib.import_module("torch.distributed.nn.functional")
        during = _of_gloo()
    return {"during": during, "after": _of_gloo()}


def in_error(folder):
    """The same where one process fails, and its error and the other's are kept."""
    kept = None
    try:
        with joined("cpu") as ranks:
            during = _of_gloo()
            if ranks.rank == 1:
                raise MetalossError("boom")
            ranks.summed([torch.ones(3)])
    except MetalossError as error:
        kept = error
    return {"during": during, "after": _of_gloo(), "said": str(kept)}


def of_the_users_own(folder):
    """The same for a group that the user made, and ends after an error."""
    dist.init_process_group("gloo")
    kept = None
    try:
        with joined("cpu") as ranks:
            during = _of_gloo()
            assert ranks.size == 2
            if ranks.rank == 0:
                ranks.any(False)
                ranks.every(1)
    except MetalossError as error:
        kept = error
    finally:
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()
    return {"during": during, "after": _of_gloo(), "said": str(kept)}
