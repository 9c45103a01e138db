"""The command line in processes of its own, forked off a server that has imported everything.

A new Python imports for four seconds before a short run of one second begins.
"""

import os

from metaloss.core.execution import preload, worker
from metaloss.core.execution.processes import CONTEXT


def begin(words, *, folder, out, err=None):
    """Begin ``metaloss WORDS``; return the process.

    Args:
        words: The words of the command line.
        folder: Its working folder.
        out: Receives standard output: a path, or an open connection.
        err: Receives standard error; None: as ``out``.
    """
    CONTEXT.set_forkserver_preload([preload.__name__])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = CONTEXT.Process(
        target=_be, args=([str(word) for word in words], folder, (out, err or out), environment)
    )
    process.start()
    return process


def run(words, **places):
    """Run ``metaloss WORDS`` to its end; return its exit status."""
    process = begin(words, **places)
    process.join()
    return process.exitcode


def _be(words, folder, outputs, environment):
    """Be the process: with its environment, its working folder and its outputs."""
    for stream, output in enumerate(outputs, 1):
        opened = output.fileno() if hasattr(output, "fileno") else _opened(output)
        os.dup2(opened, stream)
    worker._settle(environment, 1)
    os.chdir(folder)
    from metaloss.cli.main import main

    raise SystemExit(main(words))


def _opened(path):
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
