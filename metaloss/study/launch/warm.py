"""Runs that begin at once: forked from a process that has imported everything already.

To import is most of the work of a short run. A server does it once, then forks a process for every
run, which calls the command line as ``python -m metaloss`` would. The server computes nothing: it
has no thread and no CUDA context that a fork would break.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from metaloss.core.training.interrupt import ENDING
from metaloss.errors import MetalossError

# What a run imports only once it goes; `train --cfg` imports the rest.
_LATE = ("metaloss.core.runs.run", "torch._dynamo")
_LONGEST_REQUEST = 1 << 20
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# In the server: what its runs do when they are asked to end, which it does not mind itself.
_before: dict[int, Any] = {}


def can_fork() -> bool:
    """Return whether this system has what a `Server` needs: Linux has, since 5.3."""
    if sys.platform != "linux":  # macOS forks, but its own libraries do not survive it
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def begin_cold(
    words: Sequence[str], output: int, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Begin ``python -m metaloss WORDS``, which prints to the file descriptor ``output``."""
    # A process group of its own: the terminal's Ctrl-C reaches it through us, once.
    return subprocess.Popen(
        [sys.executable, "-m", "metaloss", *words],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        process_group=0,
    )


class Server:
    """Begins processes by fork. It ends, and interrupts them, when this process ends.

    Args:
        environment: Of the server, and of every process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=environment,
                process_group=0,
            )

    def begin(self, words: Sequence[str], output: int) -> Run:
        """Begin what `begin_cold` begins.

        Raises:
            MetalossError: If the server is gone.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                request = json.dumps(list(words)).encode()
                socket.send_fds(self._requests, [request], [output, theirs.fileno()])
            except OSError as error:
                ours.close()
                raise MetalossError(f"the process that begins runs is gone: {error}") from error
        return Run(ours)

    def close(self) -> None:
        """End the server, as soon as its runs have ended."""
        self._requests.close()
        self._process.wait()


class Run:
    """A process that a `Server` began: what is used of ``subprocess.Popen``.

    Whoever leaves it before it has ended interrupts it.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def wait(self) -> int:
        """Return the exit status, once; negative if a signal ended the process.

        Raises:
            MetalossError: If the server is gone; the process was killed.
        """
        with self._channel.makefile() as answers:
            pid, status = answers.readline(), answers.readline()
        if not pid:
            raise MetalossError("no process could be begun: too many, or too little memory")
        if not status:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
            raise MetalossError("the process that begins runs is gone")
        return int(status)

    def send_signal(self, number: int) -> None:
        """Send a signal, if the process has not ended."""
        with suppress(OSError):
            self._channel.send(bytes([number]))

    def kill(self) -> None:
        """End the process at once."""
        self.send_signal(signal.SIGKILL)


@dataclass(frozen=True, kw_only=True)
class _Child:
    """A forked process: its number, its pidfd, and our end of the channel to its `Run`."""

    pid: int
    pidfd: int
    channel: int


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
        suppress(Exception, SystemExit),
    ):
        _call(["train", "--cfg"])
    gc.freeze()  # else the collector would write to, and so copy, the pages that are shared


def _call(words: Sequence[str]) -> None:
    """Do what ``python -m metaloss WORDS`` does, to the SystemExit at its end."""
    sys.argv[1:] = words
    runpy.run_module("metaloss", run_name="__main__", alter_sys=True)


def _serve(requests: socket.socket) -> list[str] | None:
    """Fork for every request, pass on signals and exit statuses; see `Server` and `Run`.

    Returns:
        In a forked process the words of its request; in the server None, after the last one.
    """
    selector = selectors.PollSelector()  # nothing in the kernel that a fork would share
    selector.register(requests, selectors.EVENT_READ)
    while selector.get_map():
        # One event at a time: what it closes may have had the next one.
        key, _ = selector.select()[0]
        child: _Child | None = key.data
        if child is None:
            request, handed, *_ = socket.recv_fds(requests, _LONGEST_REQUEST, 2)
            if not request:
                selector.unregister(requests)
                continue
            output, channel = handed
            server = os.getpid()
            # Ctrl-C would be lost in what Python does after a fork: the run unblocks it itself.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                pid = os.fork()
            except OSError:
                for number in handed:
                    os.close(number)
                continue
            finally:
                if os.getpid() == server:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            if pid == 0:
                requests.detach()
                others = [entry.fd for entry in selector.get_map().values() if entry.data]
                _settle(output, [*others, channel])
                _end_with(server)
                return list(json.loads(request))
            os.close(output)
            child = _Child(pid=pid, pidfd=os.pidfd_open(pid), channel=channel)
            selector.register(child.pidfd, selectors.EVENT_READ, child)
            selector.register(channel, selectors.EVENT_READ, child)
            _answer(channel, pid)
        elif key.fd == child.pidfd:
            _, status = os.waitpid(child.pid, 0)
            _answer(child.channel, os.waitstatus_to_exitcode(status))
            for number in (child.pidfd, child.channel):
                with suppress(KeyError):
                    selector.unregister(number)
                os.close(number)
        else:
            asked = b""
            with suppress(ConnectionResetError):
                asked = os.read(child.channel, 1)
            # Whoever has gone without a word left the process behind.
            signal.pidfd_send_signal(child.pidfd, asked[0] if asked else signal.SIGINT)
            if not asked:
                selector.unregister(child.channel)
    return None


def _answer(channel: int, number: int) -> None:
    with suppress(OSError):  # nobody listens any more
        os.write(channel, b"%d\n" % number)


def _settle(output: int, inherited: Sequence[int]) -> None:
    """Make a forked process what a started one is: its group, files and random numbers."""
    os.setpgid(0, 0)
    # Whoever began a study in the background may have had it ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, handler in (_before or {signal.SIGTERM: signal.SIG_DFL}).items():
        signal.signal(number, handler)
    for number in inherited:
        os.close(number)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, standard in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(number, standard)
    os.close(nothing)
    os.close(output)
    np.random.seed()  # noqa: NPY002 - a new process begins with a seed of its own


def _end_with(server: int) -> None:
    """Be interrupted when the server ends: whoever killed it may have killed its user as well."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT))
    if os.getppid() != server:  # it has ended already
        signal.raise_signal(signal.SIGINT)


def _main() -> None:
    # It ends when its user does, who may have been sent the same: runs that are interrupted then
    # need it to tell how they ended.
    _before.update({number: signal.signal(number, signal.SIG_IGN) for number in ENDING[1:]})
    preload()
    words = _serve(socket.socket(fileno=0))
    if words is not None:
        _call(words)


if __name__ == "__main__":
    _main()
