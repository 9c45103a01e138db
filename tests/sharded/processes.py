"""Cases that run in several processes of one machine, as a launcher would start them.

``python -m tests.sharded.processes FOLDER CASE...`` is one of these processes; what its cases
return lies in ``FOLDER/RANK.pt`` then.
"""

import importlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

_ROOT = Path(__file__).parents[2]


def start(folder, *cases, size=2):
    """Start the processes; a case is a module and a function of a folder: ``"steps.adam"``.

    Each case has a folder of its own: ``folder/CASE``.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(size)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-m", __name__, str(folder), *cases],
            cwd=_ROOT,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
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


def together(folder, *cases, size=2):
    """Return what each process's cases returned: a dict by case for each rank."""
    for status, output in ended(start(folder, *cases, size=size)):
        assert status == 0, output
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def run(case, folder):
    """Return what a case returns in this process."""
    module, _, name = case.partition(".")
    return getattr(importlib.import_module(f"tests.sharded.{module}"), name)(folder)


def main():
    folder, *cases = sys.argv[1:]
    found = {case: run(case, Path(folder) / case) for case in cases}
    torch.save(found, Path(folder) / f"{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main()
