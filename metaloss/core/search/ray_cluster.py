"""A connection to Ray: on this machine, or to a cluster."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from metaloss.errors import MetalossError

_KNOCK_SECONDS = 10.0


def require_ray(word: str) -> None:
    """Raise a MetalossError if Ray, which a word asks for, is not installed."""
    if find_spec("ray") is None:
        raise MetalossError(f"{word} needs Ray: pip install 'metaloss[ray]'")


def lost_errors(ray: Any) -> tuple[type[Exception], ...]:
    """Return what Ray raises where a task's worker, or its result, is gone."""
    return (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.ObjectLostError,
    )


@contextmanager
def connected(address: str | None, option: str) -> Iterator[Any]:
    """Yield the module ``ray``, connected; disconnect it afterwards, unless it was before.

    Args:
        address: As Ray understands it.
        option: What users call the address.

    Raises:
        MetalossError: If no cluster answers.
    """
    import ray

    begun = not ray.is_initialized()
    if begun:
        try:
            knock(address)
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise MetalossError(f"{option}={address}: no Ray cluster answers ({reason})") from error
    try:
        yield ray
    finally:
        if begun:
            ray.shutdown()


def knock(address: str | None) -> None:
    """Raise OSError if nobody listens at HOST:PORT: Ray itself would try for many minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()
