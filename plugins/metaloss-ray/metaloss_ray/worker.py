"""The far end: a worker that was begun elsewhere, at the place of the process that asks."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

# What a worker must know before it imports anything: the files of --plugin.
_VARIABLES = "METALOSS_"


@dataclass(frozen=True)
class Place:
    """Where the process that asks is, for workers that were begun elsewhere.

    Example:
        >>> Place().folder == Path.cwd()
        True
    """

    folder: Path = field(default_factory=Path.cwd)
    variables: Mapping[str, str] = field(
        default_factory=lambda: {k: v for k, v in os.environ.items() if k.startswith(_VARIABLES)}
    )

    def enter(self) -> None:
        """Make this process one of that place, as far as its machine has the folder."""
        if self.folder.is_dir():
            os.chdir(self.folder)
        os.environ.update(self.variables)
        if threading.current_thread() is threading.main_thread():
            # Ray interrupts a task by this handler, which is not there if Ray was begun in the
            # background of a script.
            signal.signal(signal.SIGINT, signal.default_int_handler)


def work(place: Place, threads: int, call: bytes) -> Any:
    """Call a function in a worker; ``call`` is the pickled function with its arguments."""
    place.enter()
    from metaloss.cli import plugin_files  # noqa: F401 - it finds the modules of --plugin

    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)))
    torch.set_num_threads(threads)
    function, arguments = pickle.loads(call)
    return function(*arguments)
