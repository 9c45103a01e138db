"""Command lines in processes of their own, forked off a server that has imported everything.

A new Python imports for four seconds before a short run of one second begins.
"""

import os
import runpy
import sys

from metaloss.core.execution import preload, worker
from metaloss.core.execution.processes import CONTEXT


def begin(words, *, folder, out, err=None, module=None):
    """Begin ``metaloss WORDS``; return the process.

    Args:
        words: The words of the command line.
        folder: Its working folder.
        out: Receives standard output: a path, or an open connection.
        err: Receives standard error; None: as ``out``.
        module: Begin ``python -m MODULE WORDS`` instead.
    """
    CONTEXT.set_forkserver_preload([preload.__name__])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [str(word) for word in words]
    process = CONTEXT.Process(
        target=_be, args=(words, folder, (out, err or out), environment, module)
    )
    process.start()
    return process


def run(words, **places):
    """Run what `begin` begins to its end; return its exit status."""
    process = begin(words, **places)
    process.join()
    return process.exitcode


def _be(words, folder, outputs, environment, module):
    """Be the process: with its environment, its working folder and its outputs."""
    for stream, output in enumerate(outputs, 1):
        opened = output.fileno() if hasattr(output, "fileno") else _opened(output)
        os.dup2(opened, stream)
    worker._settle(environment, 1)
    os.chdir(folder)
    if module is not None:
        sys.argv = [module, *words]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    from metaloss.cli.main import main

    raise SystemExit(main(words))


def _opened(path):
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
