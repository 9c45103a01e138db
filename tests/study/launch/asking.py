"""A process that asks for a run, as a study does; a test kills it."""

import threading
import time
from multiprocessing import forkserver

from metaloss.core.execution import worker
from metaloss.core.execution.processes import Processes
from metaloss.study.launch.launch import ProcessTrainer


def ask(pipe, environment, words, folder):
    """Train in a process of a fork server of its own, whose number it sends.

    This process is itself forked, since a new Python would import for seconds. It knows nothing of
    the server that it comes from, and begins another one.
    """
    worker._settle(environment, 1)
    train = ProcessTrainer(executor=Processes().open(keep=False))
    threading.Thread(target=train, args=(words, folder), kwargs={"resume": False}).start()
    while forkserver._forkserver._forkserver_pid is None:
        time.sleep(0.01)
    pipe.send(forkserver._forkserver._forkserver_pid)
