"""Runs that are killed at random moments, and whatever ends them begun again by its user."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from metaloss.core.storage.run_folder import read_rows

from .. import forked

SMALL = (
    *("task=digits", "task.subset=120", "model=mlp", "model.hidden=[8]"),
    *("batch_size=8", "meta_batch_size=8", "compile=off", "device=cpu"),
    *("log_every=4", "eval_every=12", "checkpoint_every=5"),
)
QUIET, LOSS = "tracker=[]", ("loss.hidden=[6]", "start.steps=300")
MOVING = ("schedule=online", "model.dropout=0.3", "model.batch_norm=true")


@dataclass(frozen=True)
class Kind:
    """What is killed: the command's words, and how often in the long form."""

    words: tuple[str, ...]
    kills: int
    command: str = "train"
    launcher: tuple[str, ...] = field(default=())


KINDS = {
    "start": Kind((*SMALL, QUIET, "loss.hidden=[6]", "start.steps=3000", "steps=8"), 25),
    "offline": Kind(
        (
            *(*SMALL, QUIET, *LOSS, "schedule=offline", "schedule.unroll=2", "steps=60"),
            "schedule.offline_steps=60",
        ),
        30,
    ),
    "online": Kind((*SMALL, QUIET, *LOSS, *MOVING, "steps=150"), 35),
    "next": Kind(
        (*SMALL, QUIET, *LOSS, *MOVING, "schedule.meta_batch=next", "inner=adam", "steps=150"), 25
    ),
    "search": Kind(
        (
            *(*SMALL, QUIET, "loss=taylor", "schedule=offline", "steps=40"),
            *("meta_optimizer=cmaes", "meta_optimizer.generations=5", "meta_optimizer.group=2"),
            *("meta_optimizer.population=4", "meta_optimizer.fitness_steps=12"),
            *("meta_optimizer.early_end=0", "meta_optimizer.fitness=task_loss"),
        ),
        25,
    ),
    "seeds": Kind((*SMALL, QUIET, *LOSS, *MOVING, "steps=80", "seeds=3"), 30),
    "compare": Kind(
        (
            *("--jobs", "2", "--seeds", "0-1", "--row", "a: schedule=online start.steps=300"),
            *("--row", "b: schedule=static start=keep", *SMALL, "loss.hidden=[6]", "steps=60"),
        ),
        10,
        command="compare",
    ),
    "wandb": Kind(
        (*SMALL, *LOSS, *MOVING, "steps=80", "tracker=[wandb]", "tracker.wandb.mode=offline"), 10
    ),
    "torchrun": Kind(
        (*SMALL, QUIET, *LOSS, *MOVING, "steps=60"),
        10,
        launcher=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
    ),
}


class Killer:
    """Begins commands, kills some at a moment, and finishes what they left.

    Args:
        log: Where they print.
    """

    def __init__(self, log: Path) -> None:
        self._log = log

    def whole(self, kind, folder):
        """Do it without a kill; return the seconds that it takes."""
        began = time.monotonic()
        status = self.call(kind, folder)
        assert status == 0, self._log.read_text()[-2000:]
        return time.monotonic() - began

    def call(self, kind, folder, after=None):
        """Call the command as its user would; kill it ``after`` seconds. Return the status."""
        words, begin = self._words(kind, folder), Launched if kind.launcher else Forked
        with begin(kind.launcher, words, self._log) as process:
            if after is not None:
                time.sleep(after)
                process.kill()
            return process.wait()

    def finish(self, kind, folder):
        """Call until it is done; a process that ends by itself must end well."""
        for _ in range(3):
            if self.is_done(kind, folder):
                return
            status = self.call(kind, folder)
            assert status == 0, self._log.read_text()[-2000:]
        assert self.is_done(kind, folder)

    @staticmethod
    def is_done(kind, folder):
        if kind.command == "compare":
            return (folder / "table.json").is_file()
        runs = list(folder.glob("seed*")) if "seeds=3" in kind.words else [folder]
        count = 3 if "seeds=3" in kind.words else 1
        return len(runs) == count and all((run / "summary.json").is_file() for run in runs)

    @staticmethod
    def _words(kind, folder):
        if kind.command == "compare":
            return ["compare", str(folder), *kind.words]
        begun = (folder / "config.yaml").is_file() or any(folder.glob("seed*/config.yaml"))
        if begun:
            return ["train", "--resume", str(folder)]
        return ["train", *kind.words, f"output={folder}"]


class Forked:
    """A command in a process that has imported everything already."""

    def __init__(self, launcher, words, log):
        assert not launcher
        self._process = forked.begin(words, folder=log.parent, out=log)
        self.kill = self._process.kill

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def wait(self):
        self._process.join()
        return self._process.exitcode


class Launched:
    """A launcher with its processes, which are in sessions of their own, killed together."""

    def __init__(self, launcher, words, log):
        words = [sys.executable, *launcher, "-m", "metaloss", *words]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                words, stdout=output, stderr=output, start_new_session=True
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        if self._process.poll() is not None:  # its number may be another's by now
            return
        for number in (self._process.pid, *_below(self._process.pid)):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def wait(self):
        return self._process.wait()


def _below(number):
    """Return the processes that a process has begun, and what these have begun."""
    try:
        found = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    except OSError:
        return []
    return [one for child in found for one in (int(child), *_below(int(child)))]


def endings(folder):
    """Return all that must not depend on kills, of every run below a folder."""
    found = {}
    for summary in sorted(folder.rglob("summary.json")):
        run, content = summary.parent, json.loads(summary.read_text())
        place = str(run.relative_to(folder))
        found[place, "summary"] = [
            content[name] for name in ("metrics", "guard_events", "status", "steps", "warnings")
        ]
        for name in ("journal.jsonl", "curves.jsonl"):
            found[place, name] = [
                {key: value for key, value in row.items() if not key.startswith("time/")}
                for row in read_rows(run / name)
            ]
        for name in ("model.safetensors", "loss.safetensors", "search.csv"):
            if (run / name).exists():
                found[place, name] = (run / name).read_bytes()
    return found
