"""The device, random seeds and numerical settings of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from metaloss.errors import MetalossError
from metaloss.inner.keys import derive
from metaloss.inner.one_thread import one_thread


def resolve_device(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        MetalossError: If the name is invalid or there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise MetalossError(f"device={name}: expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise MetalossError(f"device={name}: this machine has {count} CUDA devices")
    return device


@contextmanager
def seeded(seed: int, purpose: str, *indices: int) -> Iterator[None]:
    """Seed torch's global CPU generator for module constructors, and restore it at the end."""
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, purpose, *indices))
        yield


def check_deterministic(device: torch.device) -> None:
    """Raise if this process cannot be deterministic on the device.

    cuBLAS reads the size of its workspace from the environment before CUDA starts.
    """
    name = "CUBLAS_WORKSPACE_CONFIG"
    if device.type == "cuda" and os.environ.get(name) not in (":4096:8", ":16:8"):
        raise MetalossError(
            f"deterministic=true on {device}: set the environment variable {name}=:4096:8 first"
        )
