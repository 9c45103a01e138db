"""The command line in each of several processes, as a launcher would begin it."""

import os
import signal
import threading
import time

from metaloss.cli.main import main
from metaloss.core.storage.run_folder import read_rows

WORDS = (
    "task=digits",
    "task.subset=200",
    "model.hidden=[16]",
    "model.batch_norm=true",
    "model.dropout=0.2",
    "start.steps=300",
    "log_every=3",
    "eval_every=6",
    "checkpoint_every=6",
    "device=cpu",
    "tracker=[]",
)


def said(text):
    """Return what metaloss said, without what a launcher adds."""
    return [line for line in text.splitlines() if line.startswith("metaloss: ")]


def trains(folder):
    """Say whether a run has logged a training step."""
    journal = folder / "journal.jsonl"
    rows = read_rows(journal) if journal.exists() else []
    return any(row["phase"] == "train" and row["phase_step"] for row in rows)


def interrupted(folder):
    """Ctrl-C in every process, as a launcher hands it on."""

    def press():
        while not trains(folder / "run"):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    return main(["train", *WORDS, "steps=1000000", f"output={folder / 'run'}"])
