"""Small tasks, models and set-ups that the tests of the core share."""

import ctypes
import gc
from dataclasses import replace
from functools import lru_cache

import torch
from torch import nn

import metaloss
from metaloss import task_from_data
from metaloss.compose import compose
from metaloss.config import RunConfig
from metaloss.contracts import Task
from metaloss.core.parts.setup import Setup, prepare
from metaloss.types import Batch

# Words that make a run fast, each for the choice that knows it.
_FAST = {
    "tracker=[]": ("tracker", "[]"),
    "batch_size=8": ("", ""),
    "meta_batch_size=8": ("", ""),
    "start.steps=1": ("start", "imitate"),
    "loss.hidden=[6]": ("loss", "mlp"),
}


def blobs(*, seed: int = 0, dtype: torch.dtype = torch.float32) -> Task:
    """Return a task of 3 overlapping classes of 4 numbers: 64, 24 and 24 rows."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(112) % 3
    centres = 1.5 * torch.randn(3, 4, generator=draw)
    inputs = centres[labels] + torch.randn(112, 4, generator=draw)
    parts = [(inputs[a:b], labels[a:b]) for a, b in ((0, 64), (64, 88), (88, 112))]
    task = task_from_data(*parts, name="blobs")
    return replace(
        task,
        **{
            part: Batch(rows.inputs.to(dtype), rows.targets)
            for part, rows in (("train", task.train), ("valid", task.valid), ("test", task.test))
        },
    )


def line(*, seed: int = 0) -> Task:
    """Return a regression task of one number from 4."""
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(112, 4, generator=draw)
    slope = torch.randn(4, 1, generator=draw)
    targets = inputs @ slope + 0.1 * torch.randn(112, 1, generator=draw)
    parts = [(inputs[a:b], targets[a:b]) for a, b in ((0, 64), (64, 88), (88, 112))]
    return task_from_data(*parts, name="line")


def net(*parts: nn.Module, outputs: int = 3, seed: int = 0) -> nn.Module:
    """Return a network of one hidden layer, with more parts between its layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 5), *parts, nn.Tanh(), nn.Linear(5, outputs))


class Joined(nn.Sequential):
    """Layers that take their inputs in two parts."""

    def forward(self, left, right):
        return super().forward(torch.cat((left, right), 1))


def in_halves(task: Task) -> Task:
    """Return a task with its inputs in two parts, as a user's own `Task` may have them."""
    parts = {"train": task.train, "valid": task.valid, "test": task.test}
    fields = {
        part: Batch({"left": rows.inputs[:, :3], "right": rows.inputs[:, 3:]}, rows.targets)
        for part, rows in parts.items()
    }
    return replace(task, **fields)


def fast(*words: str, own_loss: bool = False) -> list[str]:
    """Return the words of a fast run with these words; ``own_loss``: its loss is an object."""
    given = dict(word.split("=", 1) for word in words)
    return [
        *(
            word
            for word, (group, name) in _FAST.items()
            if given.get(group, name) == name and not (own_loss and group == "loss")
        ),
        *words,
    ]


@lru_cache
def config(*words: str) -> RunConfig:
    """Return the configuration of a fast run with these words."""
    return compose(fast(*words))


def setup(*words: str, task: Task | None = None, model=None, loss=None) -> Setup:
    return prepare(config(*words), task=task or blobs(), model=model or net(), loss=loss)


def train(folder, *words: str, task: Task | None = None, model=None, **given) -> metaloss.Run:
    """Return a finished run of :func:`blobs`, logged every 10 and evaluated every 20 steps."""
    common = ("log_every=10", "eval_every=20", f"output={folder}")
    words = fast(*common, *words, own_loss="loss" in given)
    return metaloss.train(words, task=task or blobs(), model=model or net(), **given)


def files_of(run: metaloss.Run) -> list[bytes]:
    """Return θ and φ as they are on the disk."""
    return [(run.folder / name).read_bytes() for name in ("model.safetensors", "loss.safetensors")]


def resident_bytes():
    """Return the memory that this process holds, what is free given back first."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
