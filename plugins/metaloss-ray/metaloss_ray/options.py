"""Which Ray, and what each call takes of it."""

from __future__ import annotations

from dataclasses import dataclass

from metaloss.core.execution.executor import Executor, ExecutorOptions
from metaloss.errors import MetalossError


@dataclass(frozen=True, kw_only=True)
class Ray(ExecutorOptions):
    """The options of ``hydra/launcher=ray``.

    Attributes:
        address: Of a cluster: ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``; None: what the
            environment variable RAY_ADDRESS or this machine has, else a new Ray on this machine.
        num_cpus: CPUs of each call, and its threads; positive. None: one, or the threads that
            ``metaloss compare --threads`` asks for.
        num_gpus: GPUs of each call, at least 0; those of others are hidden from it.

    Example:
        >>> Ray(num_cpus=-1)
        Traceback (most recent call last):
        metaloss.errors.MetalossError: hydra.launcher.num_cpus=-1: expected a positive number
    """

    address: str | None = None
    num_cpus: float | None = None
    num_gpus: float = 0.0

    def __post_init__(self) -> None:
        for name, holds, expected in (
            ("num_cpus", self.num_cpus is None or self.num_cpus > 0, "a positive number"),
            ("num_gpus", self.num_gpus >= 0, "a number ≥ 0"),
        ):
            if not holds:
                raise MetalossError(
                    f"hydra.launcher.{name}={getattr(self, name)}: expected {expected}"
                )

    def open(self, *, threads: int | None = None, keep: bool = True) -> Executor:
        """See `ExecutorOptions`."""
        from metaloss_ray.executor import RayExecutor

        return RayExecutor(self, threads=threads, keep=keep)
