"""Runs that are stopped and resumed, with dropout and batch statistics."""

import signal
from dataclasses import replace

from torch import nn
from torch.nn import functional as F

import metaloss

from .small_setups import blobs, fast, net

RUNS = {
    "online after offline": (
        "schedule=online",
        "schedule.offline_steps=4",
        "schedule.unroll=2",
        "meta_optimizer.anchor=0.1",
    ),
    "next": ("schedule=online", "schedule.meta_batch=next", "ema=0.8", "meta_optimizer.ema=0.6"),
    "next, few states": (
        "schedule=online",
        "schedule.meta_batch=next",
        "schedule.unroll=3",
        "schedule.judge_at=[1]",
        "meta_optimizer.checkpointing=sqrt",
    ),
    "static": (
        "schedule=static",
        "loss=cross_entropy",
        "schedule.early_stopping=2",
        "schedule.jury=0.5",
        "ema=0.9",
    ),
}


def model():
    return net(nn.BatchNorm1d(5), nn.Dropout(0.3))


def train(folder, *words, task=None):
    words = fast(
        f"output={folder}", "log_every=2", "eval_every=4", "checkpoint_every=3", "steps=12", *words
    )
    return metaloss.train(words, task=task or blobs(), model=model())


def resume(folder, task=None, **given):
    return metaloss.resume_run(folder, task=task or blobs(), model=model(), **given)


def interrupting(at, times=1):
    """Return a task whose task loss presses Ctrl-C at its n-th call."""
    calls = []

    def task_loss(outputs, targets):
        calls.append(1)
        if len(calls) == at:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return F.cross_entropy(outputs, targets)

    return replace(blobs(), task_loss=task_loss)
