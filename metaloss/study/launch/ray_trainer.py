"""Runs of a study on a Ray cluster: each task is a process of its own on some node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from metaloss.core.search.ray_cluster import require_ray
from metaloss.core.search.ray_tasks import Asked, LostError, Place, StoppedError, Tasks
from metaloss.errors import MetalossError
from metaloss.study.launch.jobs import Job
from metaloss.study.launch.launch import ProcessTrainer


class RayTrainer:
    """Trains as `ProcessTrainer` does, on a node of a Ray cluster: words, logs and statuses alike.

    Args:
        asked: Which cluster, and what each run takes of it; its CPUs are the run's threads.
        arguments: Further words for the command line, such as ``--plugin FILE.py``.

    Folders must be on a file system that the nodes share. Use it in a ``with`` statement, which
    ends what is left.

    Attributes:
        slots: How many runs fit at once into what the cluster has now.

    Raises:
        MetalossError: If Ray is not installed, no cluster answers, or this machine has too little.
    """

    def __init__(self, asked: Asked, *, arguments: Sequence[str] = ()) -> None:
        require_ray("hydra/launcher=ray")
        self._options = {"threads": max(1, int(asked.num_cpus)), "arguments": tuple(arguments)}
        self._tasks, self._place = Tasks(asked), Place()
        self.slots = self._tasks.room

    def __enter__(self) -> RayTrainer:
        return self

    def __exit__(self, *_: object) -> None:
        self._tasks.close()

    def __call__(self, overrides: list[str], folder: Path, *, resume: bool) -> str:
        """Train; see `Train`."""
        folder = folder.absolute()
        folder.parent.mkdir(parents=True, exist_ok=True)
        reference = self._tasks.begin(
            _train, self._place, self._options, list(overrides), folder, resume
        )
        try:
            return str(self._tasks.result(reference))
        except (LostError, StoppedError) as error:
            raise MetalossError(f"{folder}: {error}") from error

    def stop(self) -> None:
        """End what runs, as Ctrl-C does: each writes a checkpoint. Start nothing more."""
        self._tasks.stop()


def refuse_searches(jobs: Iterable[Job]) -> None:
    """Raise a MetalossError for a run that would wait for tasks of its own: all might only wait."""
    for job in jobs:
        if job.config["meta_optimizer"].get("workers") == "ray":
            raise MetalossError(
                f"row {job.row!r}: meta_optimizer.workers=ray beside hydra/launcher=ray: the runs "
                "have the cluster already; leave one of the two out"
            )


def _train(
    place: Place, options: dict[str, Any], overrides: list[str], folder: Path, resume: bool
) -> str:
    """Train in a process beside this worker, which Ray may interrupt."""
    place.enter(folder.parent)
    # Whatever ends the block ends the process, and only then is its thread waited for. It is no
    # fork of a server: of a worker that dies Ray ends the children, not the grandchildren.
    with ThreadPoolExecutor(1) as pool, ProcessTrainer(**options, warm=False) as train:
        future = pool.submit(train, overrides, folder, resume=resume)
        while True:
            # Ray interrupts Python alone, not what waits within the system: look up now and then.
            try:
                return future.result(timeout=0.5)
            except TimeoutError:
                continue
