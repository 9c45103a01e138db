"""Cases that run in several processes of one machine, as a launcher would start them.

``python -m tests.sharded.processes FOLDER CASE...`` is one of these processes. The results of its
cases are in ``FOLDER/RANK.pt`` at the end. `together` forks the processes off a server that has
imported everything, which takes a tenth of the time; `start` starts new ones.
"""

import importlib
import os
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch

from metaloss.core.execution import preload, worker
from metaloss.core.execution.processes import CONTEXT

_ROOT = Path(__file__).parents[2]


def environments(size):
    """Return the environment of each process, as a launcher would set it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(size)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


def start(folder, *cases, size=2):
    """Start new processes; a case is a module and a function of a folder: ``"steps.adam"``.

    Each case has a folder of its own: ``folder/CASE``.
    """
    return [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-m", __name__, str(folder), *cases],
            cwd=_ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for environment in environments(size)
    ]


def ended(processes, seconds=600):
    """Return (exit status, output) of each process; kill what has not ended in time."""
    try:
        return [
            (process.returncode, output)
            for process in processes
            for output, _ in [process.communicate(timeout=seconds)]
        ]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def together(folder, *cases, size=2, anew=False):
    """Return what each process's cases returned: a dict by case for each rank.

    Args:
        folder: Receives the results and the cases' folders.
        cases: As in `start`.
        size: The number of processes.
        anew: Whether the processes are new ones, which end as Python ends.
    """
    found = ended(start(folder, *cases, size=size)) if anew else fork(folder, *cases, size=size)
    for status, output in found:
        assert status == 0, output
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def fork(folder, *cases, size=2, seconds=600):
    """Return (exit status, output) of each forked process; kill what has not ended in time."""
    CONTEXT.set_forkserver_preload([preload.__name__])
    processes = [
        CONTEXT.Process(target=forked, args=(environment, folder, cases))
        for environment in environments(size)
    ]
    deadline = time.monotonic() + seconds
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(max(0, deadline - time.monotonic()))
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()
    logs = (folder / f"{rank}.log" for rank in range(size))
    return [(one.exitcode, log.read_text()) for one, log in zip(processes, logs, strict=True)]


def forked(environment, folder, cases):
    """Be one of the processes: with its environment, its working folder and warnings as errors."""
    log = os.open(folder / f"{environment['RANK']}.log", os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(log, stream)
    worker._settle(environment, 1)
    os.chdir(_ROOT)
    warnings.simplefilter("error")
    save(folder, cases)


def run(case, folder):
    """Return what a case returns in this process."""
    module, _, name = case.partition(".")
    return getattr(importlib.import_module(f"tests.sharded.{module}"), name)(folder)


def main():
    folder, *cases = sys.argv[1:]
    save(Path(folder), cases)


def save(folder, cases):
    """Run the cases, and write what they return."""
    found = {case: run(case, folder / case) for case in cases}
    torch.save(found, folder / f"{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main()
