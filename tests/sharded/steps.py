"""Some steps of a run in float64: what θ, buffers, the optimizer, φ and its own come to."""

from dataclasses import replace

import torch
from torch import nn
from torch.utils import _pytree as pytree

from metaloss.contracts import Progress
from metaloss.core.distributed.launch import joined
from metaloss.core.parts.setup import prepare
from metaloss.core.runs.process_checks import check_processes
from metaloss.losses import MLPLoss
from metaloss.losses.mlp import MLPLossConfig

from ..core.small_setups import blobs, config, net

_ONLINE = "schedule=online"
_EARLY = "schedule.judge_at=[1]"
CASES = {
    "momentum": (_ONLINE, "inner=sgd", "inner.momentum=0.9"),
    "adam": (_ONLINE, "inner=adam", "schedule.unroll=3", _EARLY, "meta_optimizer.anchor=0.5"),
    "next": (_ONLINE, "schedule.meta_batch=next", "inner.momentum=0.9", "inner.nesterov=true"),
    "offline": ("schedule=offline", "schedule.offline_steps=6", "schedule.unroll=2"),
    "finite_difference": (_ONLINE, "meta_optimizer=finite_difference", "schedule.unroll=2"),
    "torchopt": (_ONLINE, "meta_optimizer=torchopt", "schedule.unroll=2", _EARLY),
    "higher": (_ONLINE, "meta_optimizer=higher", "schedule.unroll=2"),
    "rows": (_ONLINE, "meta_optimizer.rows=0.5", "schedule.unroll=2", _EARLY),
    "rows_next": (_ONLINE, "meta_optimizer.rows=0.5", "schedule.meta_batch=next"),
    "odd": (_ONLINE, "batch_size=7", "meta_batch_size=3"),
    "static": ("schedule=static", "inner=rmsprop"),
}


def _loss():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return MLPLoss(MLPLossConfig(hidden=[6])).double()


def _task():
    """Return a task in which some rows count for nothing: a loss is not a mean over shares."""
    task = blobs(dtype=torch.float64)
    targets = task.train.targets.clone()
    targets[::5] = -100
    return replace(task, train=task.train._replace(targets=targets))


def _steps(words, count=10):
    model = net(nn.BatchNorm1d(5), nn.Dropout(0.3)).double()
    with joined("cpu") as ranks:
        setup = prepare(
            config(*words, "device=cpu"), task=_task(), model=model, loss=_loss(), ranks=ranks
        )
        check_processes(setup)
        phi = {name: value.detach() for name, value in setup.loss.named_parameters()}
        state = setup.anchored(setup.state(setup.advance.fresh("train", 0), phi))
        progress = Progress()
        for _ in range(count):
            plan = setup.schedule.plan(progress, 1000)
            state = setup.advance(state, plan, progress)
            progress = progress.after(plan)
        assert int(state.guard.bad) == 0
        values = {"phi": state.phi, "outer": state.rule, **state.inner._asdict()}
    return {
        f"{name} {index}": leaf
        for name, tree in values.items()
        for index, leaf in enumerate(pytree.tree_leaves(tree))
        if isinstance(leaf, torch.Tensor)
    }


def begin(folder):
    """What every case begins with, but for the state of its optimizers."""
    return _steps(CASES["momentum"], count=0)


def __getattr__(name):
    if name not in CASES:
        raise AttributeError(name)
    return lambda folder: _steps(CASES[name])
