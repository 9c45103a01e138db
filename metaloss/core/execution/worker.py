"""The far end: a process that calls what it is sent, until whoever asked has gone."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch

from metaloss.core.execution import preload
from metaloss.core.execution.executor import StoppedError


def work(pipe: Connection, environment: Mapping[str, str], threads: int) -> None:
    """Answer every (function, arguments) from the pipe by (result, error).

    Args:
        pipe: Says ``None`` first: from then on the process can be interrupted.
        environment: Replaces this process's own.
        threads: Threads of the call.
    """
    asks = multiprocessing.parent_process()
    assert asks is not None
    try:
        _settle(environment, threads)
        threading.Thread(target=_end_with, args=(asks,), daemon=True).start()
        pipe.send(None)
        while True:
            pipe.send_bytes(_answer(*pipe.recv()))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        atexit._run_exitfuncs()  # multiprocessing may end a process without them


def _settle(environment: Mapping[str, str], threads: int) -> None:
    """Make a forked process what a started one is: its group, signals and random numbers."""
    for number, handler in preload.handlers.items():
        signal.signal(number, handler)
    # A study that was begun in the background may have been told to ignore Ctrl-C. Ray's workers
    # block it, and so would a process that one of them begins.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        # A process group of its own: the terminal's Ctrl-C comes through whoever asked, once.
        os.setpgid(0, 0)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(threads)
    np.random.seed()  # noqa: NPY002 - a new process begins with a seed of its own


def _end_with(asks: BaseProcess) -> None:
    """Interrupt this process when the one that asks has died, so that a run is saved."""
    asks.join()
    os.kill(os.getpid(), signal.SIGINT)


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    try:
        return pickle.dumps((function(*arguments), None))
    except KeyboardInterrupt:
        return pickle.dumps((None, StoppedError("stopped")))
    except Exception as error:
        error.add_note(traceback.format_exc())
        with suppress(Exception):
            answer = pickle.dumps((None, error))
            pickle.loads(answer)
            return answer
        return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))
