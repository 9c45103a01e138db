"""W&B's service process dies in the middle of a run: the run goes on, and it is told once."""

import gc
import os
import signal
import subprocess
from pathlib import Path

import pytest

from metaloss.contracts import Logged, Noticed, RunFinished, Tracker
from metaloss.tracking.fanout import Fanout
from metaloss.tracking.wandb import Mode, WandB, WandBConfig

from .conftest import started

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="child processes are read in /proc"
)


class Listener(Tracker):
    def __init__(self):
        self.heard = []

    def handle(self, event):
        self.heard.append(event)


def services():
    """Return the process ids of W&B's services that this process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, fields = path.read_text().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue  # it ended while we looked
        if name.startswith("wandb") and int(fields.split()[1]) == os.getpid():
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("logged", [0, 3])
def test_a_service_that_dies_is_told_of_once_and_the_others_hear_everything(no_key, logged):
    others = services()
    listener = Listener()
    tracker = WandB(WandBConfig(mode=Mode.offline))
    fanout = Fanout({"wandb": tracker, "listener": listener})
    fanout.handle(started(no_key))
    events = [
        Logged(step=step, phase="train", phase_step=step, numbers={"train/loss": 1.0})
        for step in range(4)
    ]
    for event in events[:logged]:
        fanout.handle(event)
    (service,) = set(services()) - set(others)
    os.kill(service, signal.SIGKILL)
    # Its own handle waits for it: one that never did would warn when it is collected.
    handles = [one for one in gc.get_objects() if type(one) is subprocess.Popen]
    (handle,) = [one for one in handles if one.pid == service]
    handle.wait()
    for event in events[logged:]:
        fanout.handle(event)
    finished = RunFinished(summary={"status": "ok", "metrics": {}})
    fanout.handle(finished)
    fanout.close()
    told = [event for event in listener.heard if isinstance(event, Noticed)]
    assert len(told) == 1
    assert told[0].message.startswith("tracker 'wandb' failed and was disconnected: ")
    assert [event for event in listener.heard[1:] if event not in told] == [*events, finished]
    # Another run of the same process is tracked again.
    again = Fanout({"wandb": WandB(WandBConfig(mode=Mode.offline)), "listener": listener})
    again.handle(started(no_key))
    again.handle(finished)
    again.close()
    assert "wandb" not in str(listener.heard[-1])
    assert set(services()) == set(others)
