"""Weights & Biases' service and hooks, kept from outliving a run.

`wandb.init` starts a service process, names it in the environment, and replaces ``sys.exit`` and
``sys.excepthook``. A tracker must leave the process as it found it: exit codes are handed over
when a run is closed, and the service is stopped with the last run that needed it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SERVICE = "WANDB_SERVICE"

# wandb's state is global to the process; so is this, and the lock that guards both.
_lock = threading.Lock()
_open_runs = 0
_started_service = False


def open_run(**options: Any) -> Any:
    """Call ``wandb.init(**options)``, and undo what it changes in this process."""
    global _open_runs
    import wandb

    with _lock:
        _open_runs += 1
        try:
            with _unchanged_process():
                return wandb.init(**options)
        except BaseException:
            _forget_run()
            raise


def close_run(run: Any, exit_code: int) -> None:
    """Finish a run of `open_run`, and stop the service if it was the last."""
    with _lock:
        try:
            run.finish(exit_code=exit_code)
        finally:
            _forget_run()


@contextmanager
def _unchanged_process() -> Iterator[None]:
    global _started_service
    service, hooks = os.environ.get(_SERVICE), (sys.exit, sys.excepthook)
    try:
        yield
    finally:
        sys.exit, sys.excepthook = hooks
        if service is None and os.environ.pop(_SERVICE, None) is not None:
            _started_service = True


def _forget_run() -> None:
    global _open_runs, _started_service
    import wandb

    _open_runs -= 1
    # A run that the user opened meanwhile shares the service; wandb stops it when Python ends.
    if not _open_runs and _started_service and wandb.run is None:
        _started_service = False
        wandb.teardown()
