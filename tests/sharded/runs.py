"""Whole runs, in one process or several, in float64."""

import os
import signal
import time
from dataclasses import replace
from datetime import timedelta

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metaloss
from metaloss import registry
from metaloss.core.distributed.launch import joined
from metaloss.errors import MetalossError
from metaloss.inner.processes.ranks import LostRankError

from ..core.random_search import Draws
from ..core.small_setups import Joined, blobs, fast, in_halves, net
from .meetings import group
from .steps import _loss

_RANK = os.environ.get("RANK")


def _model(*parts, seed=0):
    return net(*(parts or (nn.BatchNorm1d(5), nn.Dropout(0.3))), seed=seed).double()


_LEARNED = (
    "schedule=online",
    "schedule.offline_steps=4",
    "schedule.unroll=2",
    "schedule.jury=0.5",
    "schedule.verdict=freeze",
    "schedule.patience=1",
    "ema=0.9",
)


def _train(folder, *words, model=None, task_loss=F.cross_entropy, task=None):
    loss = None if "loss=taylor" in words else _loss()
    words = fast(
        *(_LEARNED if "schedule=offline" not in words else ()),
        *("log_every=2", "eval_every=4", "checkpoint_every=3", "steps=12", "device=cpu"),
        f"output={folder / 'run'}",
        *words,
        own_loss=loss is not None,
    )
    task = replace(task or blobs(dtype=torch.float64), task_loss=task_loss)
    return metaloss.train(words, task=task, model=model or _model(), loss=loss)


def whole(folder):
    """A run that nothing stops; in several processes with its inputs in two tensors."""
    given = {}
    if _RANK is not None:
        task = in_halves(blobs(dtype=torch.float64))
        given = {"task": task, "model": Joined(*_model())}
    summary = _train(folder, **given).summary.as_dict()
    return {name: summary[name] for name in ("metrics", "steps", "status")}


def short(folder, *words):
    """A few steps, with rows that are sampled."""
    few = "schedule.offline_steps=0", "schedule.unroll=1", "steps=3", "meta_optimizer.rows=0.5"
    return _train(folder, *few, *words).summary.as_dict()["metrics"]


def traced(folder):
    """The same by traced steps, which exchange values inside of their programs."""
    return short(folder, "compile=trace")


def _asked(at, act):
    """Return a task loss that acts at its n-th call, in the last process alone."""
    calls = []

    def asked(outputs, targets):
        calls.append(1)
        if len(calls) == at and _RANK in (None, "1"):
            act()
        return F.cross_entropy(outputs, targets)

    return asked


def interrupted(folder):
    """A run with Ctrl-C in the middle of training, in one of its processes."""
    # The start has one step and asks once.
    with pytest.raises(KeyboardInterrupt, match="a checkpoint was written") as caught:
        _train(folder, task_loss=_asked(1 + 18, lambda: signal.raise_signal(signal.SIGINT)))
    return str(caught.value)


def resumed(folder):
    """The rest of an interrupted run."""
    task = blobs(dtype=torch.float64)
    run = metaloss.resume_run(folder / "run", task=task, model=_model(), loss=_loss())
    return run.summary.status


def fails(folder):
    """A run in one of whose processes something breaks."""

    def act():
        raise OSError("boom")

    _train(folder, task_loss=_asked(1 + 18, act))


def users(folder):
    """Two runs in the user's own process group: the first fails in process 0 alone."""
    (folder / "run").mkdir(parents=True, exist_ok=True)
    (folder / "run" / "mine").touch()
    with group(folder):
        with pytest.raises(MetalossError) as caught:
            _train(folder)
        again = _train(folder / "again").summary.steps
    return {"said": str(caught.value), "again": again}


def _other_row():
    """A task whose last test row is another one in process 1."""
    task = blobs(dtype=torch.float64)
    inputs = task.test.inputs.clone()
    inputs[-1] += int(_RANK)
    return replace(task, test=task.test._replace(inputs=inputs))


def waits(folder):
    """One process that waits for another which does not answer."""
    gave_up = folder / "gave_up"
    with joined("cpu", timedelta(seconds=4)) as ranks:
        if ranks.rank == 1:
            while not gave_up.exists():
                time.sleep(0.1)
            return ""
        with pytest.raises(LostRankError, match="did not answer in time") as caught:
            ranks.any(False)
        folder.mkdir(parents=True)
        gave_up.touch()
    return str(caught.value)


class _Noisy(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, self.training)


class _Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


def _searching():
    registry.register("meta_optimizer", "draws")(Draws)
    return ["loss=taylor", "meta_optimizer=draws", "schedule=offline"]


REFUSED = {
    "noisy": (lambda: {"model": _model(_Noisy())}, "draws random numbers outside of nn.Dropout"),
    "centred": (lambda: {"model": _model(_Centred())}, "depend on which rows a process has"),
    "others": (lambda: {"model": _model(seed=int(_RANK))}, "rank 1 has another model than rank 0"),
    "data": (lambda: {"task": _other_row()}, "rank 1 has another task than rank 0"),
    "small": (
        lambda: {"words": ["batch_size=1"]},
        "has 1 rows: expected one or more for each of 2",
    ),
    "searches": (
        lambda: {"words": _searching()},
        "meta_optimizer=draws is a search",
    ),
    "numbered": (lambda: {"words": ["device=cuda:0"]}, "needs its own device"),
    "compiled": (lambda: {"words": ["compile=on"]}, "in several processes cannot be compiled"),
    "uneven": (
        lambda: {"words": ["compile=trace", "meta_batch_size=7"]},
        "the 7 rows of meta_batch_size are no multiple of 2 processes",
    ),
    "settings": (lambda: {"words": [f"seed={_RANK}"]}, "rank 1 has another configuration"),
}


def __getattr__(name):
    if name not in REFUSED:
        raise AttributeError(name)
    return lambda folder: _refusal(folder, **REFUSED[name][0]())


def _refusal(folder, words=(), **given):
    with pytest.raises(MetalossError) as caught:
        _train(folder, *words, **given)
    return str(caught.value)
