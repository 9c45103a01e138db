"""A connection to Ray: on this machine, or to a cluster."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from metaloss.errors import MetalossError

_KNOCK_SECONDS = 10.0


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to Ray; disconnect afterwards, unless it was connected before.

    Args:
        address: As Ray understands it.

    Raises:
        MetalossError: If no cluster answers.
    """
    begun = not ray.is_initialized()
    if begun:
        try:
            knock(address)
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise MetalossError(f"address={address}: no Ray cluster answers ({reason})") from error
    try:
        yield
    finally:
        if begun:
            ray.shutdown()


def knock(address: str | None) -> None:
    """Raise OSError if nobody listens at HOST:PORT: Ray itself would try for many minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()
