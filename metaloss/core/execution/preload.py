"""What the standard library's fork server imports before it forks anything.

To import is most of the work of a short run. The server does it once, and computes nothing: a team
of threads, autograd's engine or a CUDA context would not survive a fork.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from typing import Any

from metaloss.core.training.interrupt import ENDING

# What sets the threads of the libraries that compute.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
# What a run imports only once it goes; `train --cfg` imports the rest.
_LATE = ("metaloss.core.runs.run", "torch._dynamo")
# In the server: the handlers of the signals that it ignores, for the processes that it forks.
handlers: dict[int, Any] = {}


def preload() -> None:
    """Import what runs import, and compose a configuration once; compute nothing."""
    for name in _LATE:
        # Whatever is wrong, a run that needs it says so itself.
        with suppress(Exception):
            importlib.import_module(name)
    with (
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
        suppress(Exception),
    ):
        importlib.import_module("metaloss.cli.main").main(["train", "--cfg"])
    gc.freeze()  # else the collector would write to, and so copy, the pages that are shared


def _prepare() -> None:
    os.setpgid(0, 0)  # the terminal's Ctrl-C is not for the server
    # Whoever ends a whole group of processes may reach the server too. Runs that were interrupted
    # then need it to tell that they have ended; it ends when nobody needs it any more.
    handlers.update({number: signal.signal(number, signal.SIG_IGN) for number in ENDING[1:]})
    # NumPy begins a team of threads when it is imported, unless it is told to have one.
    os.environ.update(dict.fromkeys(THREADS, "1"))
    preload()


if any("multiprocessing.forkserver" in word for word in sys.orig_argv):
    _prepare()
