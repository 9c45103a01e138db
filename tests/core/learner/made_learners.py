"""Learners and batches from seeds."""

import torch
from torch.nn import functional as F

from metaloss import Learner
from metaloss.core.batches.streams import BatchStream
from metaloss.inner import SGD
from metaloss.losses import MLPLoss
from metaloss.losses.mlp import MLPLossConfig

from ..small_setups import blobs, net


def make_loss():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return MLPLoss(MLPLossConfig(hidden=[6]))


def make(*parts, **given):
    given = {"inner": SGD(lr=0.1, momentum=0.9), **given}
    return Learner(net(*parts), make_loss(), task_loss=F.cross_entropy, **given)


def batches(count, seed=0):
    task = blobs()
    train = BatchStream(task.train, size=8, seed=seed, purpose="train")
    valid = BatchStream(task.valid, size=8, seed=seed, purpose="meta/train")
    return [(train[k], valid[k]) for k in range(count)]


def values(learner):
    state = {**learner.model.state_dict(), **learner.loss.state_dict()}
    return {name: value.clone() for name, value in state.items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name
