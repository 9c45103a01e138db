"""A small model and batches for it."""

import torch
from torch import nn


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()


class Layer(nn.Module):
    """A small network around a function of the hidden values."""

    def __init__(self, function=None):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.function = function

    def forward(self, x):
        h = self.first(x)
        return self.last(torch.tanh(h if self.function is None else self.function(self, h)))


def batch(seed, rows=6):
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, 6, generator=draw, dtype=torch.float64)
    return inputs, torch.randint(3, (rows,), generator=draw)
