"""The service process and the hooks of Weights & Biases, removed after a run.

`wandb.init` starts a service process, sets an environment variable, and replaces ``sys.exit`` and
``sys.excepthook``. A tracker must not change the process. So the hooks are restored at once, and
the service is stopped with the last run that needs it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SERVICE = "WANDB_SERVICE"

# wandb's state is global to the process, and so is this; the lock guards both.
_lock = threading.Lock()
_open_runs = 0
_started_service = False


def open_run(**options: Any) -> Any:
    """Call ``wandb.init(**options)`` and undo its changes of this process."""
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
    """Finish a run of `open_run`; stop the service if it was the last one."""
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
    # A run of the user's own may use the service too; wandb then stops it when Python ends.
    if not _open_runs and _started_service and wandb.run is None:
        _started_service = False
        wandb.teardown()
