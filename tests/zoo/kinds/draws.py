"""Models that draw random numbers in their forward pass."""

import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import DropBlock2d, stochastic_depth

from ..kind import Group, Net, Truth, between, head, pooled, real

GROUP = Group("Random numbers in the forward pass")


def add(name, make, inputs, **options):
    # In the short form every second one.
    options.setdefault("heavy", len(GROUP.kinds) % 2 > 0)
    GROUP.add(name, make, inputs, truth=Truth.own, traces=None, **options)


GROUP.add(
    "Dropout",
    lambda: between(nn.Dropout(0.4), nn.Tanh(), nn.Dropout(0.2)),
    real(4),
    truth=Truth.own,
)
GROUP.add(
    "Dropout, one for two places",
    lambda: Net(
        lambda m, x: m.head(m.drop(torch.tanh(m.drop(m.body(x))))),
        body=nn.Linear(4, 6),
        drop=nn.Dropout(0.3),
        head=head(6),
    ),
    real(4),
    truth=Truth.own,
)
GROUP.add("Dropout in a block under two names", lambda: _shared(), real(4), truth=Truth.own)
GROUP.add("Dropout in evaluation mode (p=0)", lambda: between(nn.Dropout(0.0), nn.Tanh()), real(4))
add("Dropout, inplace", lambda: between(nn.Dropout(0.4, inplace=True), nn.Tanh()), real(4))
add(
    "Dropout1d",
    lambda: nn.Sequential(nn.Conv1d(2, 4, 2), nn.Dropout1d(0.4), nn.Tanh(), nn.Flatten(), head(20)),
    real(2, 6),
)
add(
    "Dropout2d",
    lambda: pooled(nn.Conv2d(2, 4, 2), nn.Dropout2d(0.4), nn.Tanh(), width=4),
    real(2, 4, 4),
)
add(
    "Dropout3d",
    lambda: pooled(nn.Conv3d(1, 4, 2), nn.Dropout3d(0.4), nn.Tanh(), width=4),
    real(1, 3, 3, 3),
)
add("AlphaDropout", lambda: between(nn.SELU(), nn.AlphaDropout(0.3)), real(4))
add(
    "FeatureAlphaDropout",
    lambda: pooled(nn.Conv2d(2, 4, 2), nn.FeatureAlphaDropout(0.3), nn.Tanh(), width=4),
    real(2, 4, 4),
)
add(
    "F.dropout",
    lambda: Net(
        lambda m, x: m.head(F.dropout(torch.tanh(m.body(x)), 0.4, m.training)),
        body=nn.Linear(4, 6),
        head=head(6),
    ),
    real(4),
)
add(
    "F.dropout with a BatchNorm",
    lambda: Net(
        lambda m, x: m.head(F.dropout(torch.tanh(m.norm(m.body(x))), 0.4, m.training)),
        body=nn.Linear(4, 6),
        norm=nn.BatchNorm1d(6),
        head=head(6),
    ),
    real(4),
)
add(
    "noise on the inputs",
    lambda: Net(
        lambda m, x: m.head(torch.tanh(m.body(x + 0.3 * torch.randn_like(x)))),
        body=nn.Linear(4, 6),
        head=head(6),
    ),
    real(4),
)
add(
    "reparametrized sample (variational)",
    lambda: Net(
        lambda m, x: m.head(
            torch.tanh(m.mean(x) + torch.exp(m.scale(x)) * torch.randn(len(x), 6, dtype=x.dtype))
        ),
        mean=nn.Linear(4, 6),
        scale=nn.Linear(4, 6),
        head=head(6),
    ),
    real(4),
)
add(
    "torch.distributions, rsample",
    lambda: Net(
        lambda m, x: m.head(
            torch.distributions.Normal(
                m.mean(x), F.softplus(m.scale(x)), validate_args=False
            ).rsample()
        ),
        mean=nn.Linear(4, 6),
        scale=nn.Linear(4, 6),
        head=head(6),
    ),
    real(4),
)
add(
    "stochastic depth",
    lambda: Net(
        lambda m, x: m.head(torch.tanh(x) + stochastic_depth(m.body(x), 0.5, "row", m.training)),
        body=nn.Linear(4, 4),
        head=head(4),
    ),
    real(4),
)
add(
    "DropBlock2d",
    lambda: pooled(nn.Conv2d(2, 4, 2), DropBlock2d(0.3, 3), nn.Tanh(), width=4),
    real(2, 5, 5),
)
add(
    "mixup inside of the model",
    lambda: Net(
        lambda m, x: m.head(torch.tanh(m.body(0.7 * x + 0.3 * x[torch.randperm(len(x))]))),
        body=nn.Linear(4, 6),
        head=head(6),
    ),
    real(4),
)


def _layer_drop(m, x):
    h = torch.tanh(m.first(x))
    for layer in m.layers:
        if not m.training or random.random() > 0.5:
            h = h + torch.tanh(layer(h))
    return m.head(h)


add(
    "LayerDrop by Python's random",
    lambda: Net(
        _layer_drop,
        first=nn.Linear(4, 5),
        layers=nn.ModuleList(nn.Linear(5, 5) for _ in range(4)),
        head=head(5),
    ),
    real(4),
)


def _numpy_mask(m, x):
    mask = torch.from_numpy(np.random.binomial(1, 0.6, (len(x), 6))).to(x.dtype)  # noqa: NPY002
    return m.head(torch.tanh(m.body(x)) * mask)


add("a mask by numpy", lambda: Net(_numpy_mask, body=nn.Linear(4, 6), head=head(6)), real(4))


class OwnNumpy(nn.Module):
    """A numpy generator of its own."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 6), head(6)
        self.numbers = np.random.default_rng(0)

    def forward(self, x):
        mask = torch.from_numpy(self.numbers.binomial(1, 0.6, (len(x), 6))).to(x.dtype)
        return self.head(torch.tanh(self.body(x)) * mask)


class OwnTorch(nn.Module):
    """A torch generator of its own."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 6), head(6)
        self.numbers = torch.Generator().manual_seed(0)

    def forward(self, x):
        noise = torch.randn(len(x), 6, generator=self.numbers, dtype=x.dtype)
        return self.head(torch.tanh(self.body(x)) + noise)


class OwnPython(nn.Module):
    """A Python generator of its own."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 6), head(6)
        self.numbers = random.Random(0)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)) * (1 + self.numbers.random()))


add("a numpy generator of its own", OwnNumpy, real(4))
add("a torch generator of its own", OwnTorch, real(4), heavy=False)
add("a Python generator of its own", OwnPython, real(4), heavy=False)


def _shared():
    block = nn.Sequential(nn.Linear(5, 5), nn.Dropout(0.4), nn.Tanh(), nn.Dropout(0.2))
    return Net(
        lambda m, x: m.head(m.two(m.one(m.first(x)))),
        first=nn.Linear(4, 5),
        one=block,
        two=block,
        head=head(5),
    )
