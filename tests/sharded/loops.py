"""A loop of the user's own in several processes, each with its rows, and in one with all rows."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import metaloss
from metaloss.errors import MetalossError
from metaloss.inner import SGD, Adam
from metaloss.losses import MLPLoss
from metaloss.losses.mlp import MLPLossConfig
from metaloss.meta_optimizers.mixed import Mixed

from ..core.small_setups import net
from .meetings import RANK, group

# How many of twelve rows each rank has, and of six in a meta-batch.
_ROWS, _META = ([0, 7, 12], [0, 1, 6])


def _loss():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return MLPLoss(MLPLossConfig(hidden=[6])).double()


def _learner(model=None, **given):
    given = {"inner": SGD(lr=0.2, momentum=0.9), "meta_optimizer": Mixed(lr=0.01), **given}
    model = model or net(nn.BatchNorm1d(5), nn.Dropout(0.3)).double()
    return metaloss.Learner(model, _loss(), task_loss=F.cross_entropy, **given)


def _pair(number, bounds):
    """Return this process's rows of a batch; all of them where it is alone."""
    draw = torch.Generator().manual_seed(number)
    inputs = torch.randn(bounds[-1], 4, generator=draw, dtype=torch.float64)
    targets = torch.randint(3, (bounds[-1],), generator=draw)
    alone = not torch.distributed.is_initialized()
    mine = slice(0, None) if alone else slice(bounds[RANK], bounds[RANK + 1])
    return inputs[mine], targets[mine]


def _held(learner, losses=()):
    trees = {
        "model": learner.model.state_dict(),
        "loss": learner.loss.state_dict(),
        "optimizer": learner.state_dict()["optimizer"],
        "outer": learner.state_dict()["outer"],
        "losses": list(losses),
    }
    return {
        f"{name} {index}": leaf
        for name, tree in trees.items()
        for index, leaf in enumerate(pytree.tree_leaves(tree))
        if isinstance(leaf, torch.Tensor)
    }


def _steps(folder, **given):
    """Steps of all kinds: a moving loss, one at rest, several in a row."""
    losses = []
    with group(folder):
        learner = _learner(**given)
        for number in range(3):
            pair, meta = _pair(number, _ROWS), _pair(100 + number, _META)
            losses.append(learner.step(pair, meta))
        losses.append(learner.step(_pair(10, _ROWS)))
        several = [_pair(number, _ROWS) for number in (20, 21)]
        losses.append(learner.step(several, _pair(120, _META)))
    return _held(learner, losses)


def momentum(folder):
    """Plain settings."""
    return _steps(folder)


def adam(folder):
    """Another optimizer, another engine."""
    return _steps(folder, inner=Adam(lr=0.05), meta_optimizer="torchopt")


def accumulated(folder):
    """Batches in parts, each of which is split over the ranks; groups with their own rates."""
    losses = []
    with group(folder):
        model = net(nn.Dropout(0.3)).double()
        groups = [{"params": model[0].parameters(), "lr": 0.05}, {"params": model[-1].parameters()}]
        learner = _learner(model, inner=metaloss.ParamGroups(SGD(lr=0.2, clip=0.1), groups))
        for number in range(3):
            parts = [_pair(number, _ROWS), _pair(30 + number, _ROWS)]
            losses.append(learner.step(parts, _pair(100 + number, _META), accumulate=True))
    return _held(learner, losses)


def weighted(folder):
    """Rows with weights, which are on both sides of a rank's bound, and weighted meta-batches."""
    losses = []

    def pair(number, bounds):
        inputs, targets = _pair(number, bounds)
        return inputs, targets, inputs[:, 0].abs()

    with group(folder):
        learner = _learner()
        for number in range(3):
            losses.append(learner.step(pair(number, _ROWS), pair(100 + number, _META)))
    return _held(learner, losses)


class _Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net(nn.BatchNorm1d(5)).double()

    def forward(self, rows, scale=None):
        return self.net(rows) * scale.unsqueeze(1)


def named(folder):
    """Inputs that are a dictionary of tensors, as those of a model of sentences."""
    losses = []

    def pair(number, bounds):
        rows, targets = _pair(number, bounds)
        return {"rows": rows, "scale": rows[:, 0].exp()}, targets

    with group(folder):
        learner = _learner(_Named())
        for number in range(2):
            losses.append(learner.step(pair(number, _ROWS), pair(100 + number, _META)))
    return _held(learner, losses)


def frozen(folder):
    """A part in evaluation mode, as people fine-tune, and a frozen one."""
    model = net(nn.BatchNorm1d(5), nn.BatchNorm1d(5)).double()
    model[2].eval()
    model[0].requires_grad_(False)
    return _steps(folder, model=model)


def begins(folder):
    """What every case begins with."""
    with group(folder):
        return _held(_learner())


def written(folder):
    """The same is written into the weights of all between two steps, and a state is loaded."""
    with group(folder):
        learner = _learner()
        learner.step(_pair(0, _ROWS), _pair(100, _META))
        state = learner.state_dict()
        with torch.no_grad():
            learner.model[0].weight.mul_(0.5)
        learner.step(_pair(1, _ROWS), _pair(101, _META))
        between = learner.model[0].weight.detach().clone()
        learner.load_state_dict(state)
        learner.step(_pair(2, _ROWS), _pair(102, _META))
    return {**_held(learner), "between": between}


def spoiled(folder):
    """One rank's rows have a NaN: whatever becomes of it, it becomes of all."""
    with group(folder):
        learner = _learner()
        inputs, targets = _pair(0, _ROWS)
        if RANK == 1:
            inputs[0, 0] = float("nan")
        losses = learner.step((inputs, targets), _pair(100, _META))
    return _held(learner, [losses])


def _differs():
    _learner(net(seed=RANK).double()).step(_pair(0, _ROWS))


def _seeds():
    _learner(seed=RANK)


def _drifts():
    learner = _learner()
    learner.step(_pair(0, _ROWS), _pair(100, _META))
    if RANK == 1:
        with torch.no_grad():
            learner.model[0].weight.mul_(0.5)
    learner.step(_pair(1, _ROWS), _pair(101, _META))


def _loads():
    learner = _learner()
    state = learner.state_dict()
    learner.step(_pair(0, _ROWS), _pair(100, _META))
    if RANK == 0:
        learner.load_state_dict(state)
    learner.step(_pair(1, _ROWS), _pair(101, _META))


def _meta_in_one():
    _learner().step(_pair(0, _ROWS), _pair(100, _META) if RANK == 0 else None)


def _wrapped():
    _learner(nn.parallel.DistributedDataParallel(net().double()))


class _Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


def _weighs_alone():
    inputs, targets = _pair(0, _ROWS)
    weighed = (inputs, targets, inputs[:, 0].abs())
    _learner().step(weighed if RANK else (inputs, targets))


def _meta_parts():
    meta = _pair(100, _META)
    _learner().step([_pair(0, _ROWS)], [meta, meta], accumulate=True)


REFUSED = {
    "weighs alone": (_weighs_alone, "rank 1 got weights (B, ) of torch.float64 on a cpu, rank 0"),
    "meta parts": (_meta_parts, "a meta_batch in parts needs one process"),
    "differs": (_differs, "rank 1 has another model than rank 0"),
    "seeds": (_seeds, "rank 1 has another seed than rank 0"),
    "drifts": (_drifts, "rank 1 has another model than rank 0"),
    "loads": (_loads, "rank 1 has taken 1 steps, rank 0 0"),
    "meta-batch in one": (_meta_in_one, "rank 0 got a meta_batch, rank 1 none"),
    "wrapped": (_wrapped, "pass the module inside (model.module)"),
    "centred": (
        lambda: _learner(net(_Centred()).double()).step(_pair(0, _ROWS)),
        "depend on which rows a process has",
    ),
    "compiled": (
        lambda: _learner(compile="trace"),
        "compile=trace: steps in 2 processes cannot be compiled",
    ),
}


def refused(folder):
    """What each process is told of each fault."""
    said = {}
    with group(folder):
        for name, (call, _) in REFUSED.items():
            with pytest.raises(MetalossError) as caught:
                call()
            said[name] = str(caught.value)
    return said
