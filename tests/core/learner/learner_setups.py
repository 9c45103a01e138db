"""Models and steps that tests of a learner share."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metaloss
from metaloss.errors import MetalossError
from metaloss.inner import SGD
from metaloss.losses import MLPLoss


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()


def net(*middle):
    return seeded(lambda: nn.Sequential(nn.Linear(5, 8), *middle, nn.Linear(8, 3))).double()


def pair(seed, rows=12):
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 5, generator=draw, dtype=torch.float64)
    return inputs, torch.randint(3, (rows,), generator=draw)


def learner_of(model, loss=None, **given):
    given = {"inner": SGD(lr=0.3), **given}
    return metaloss.Learner(
        model, loss or seeded(MLPLoss).double(), task_loss=F.cross_entropy, **given
    )


def refusal_of(made):
    """Return the one line by which a learner refuses the inner optimizer ``made(model)``."""
    model = net()
    with pytest.raises(MetalossError) as caught:
        learner_of(model, inner=made(model))
    assert "\n" not in str(caught.value)
    return str(caught.value)
