"""What goes into a model and comes out of it, beside one tensor."""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kind import Group, head, real

GROUP = Group("Inputs and outputs")
add = GROUP.add


def also(*names):
    """Inputs by name, or (without names) two of them."""

    def draw(generator):
        one, two = real(4)(generator), real(4)(generator)
        return dict(zip(names, (one, two), strict=True)) if names else (one, two)

    return draw


class Two(nn.Module):
    """Two inputs."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 6), head(6)

    def forward(self, one, two):
        return self.head(torch.tanh(self.body(one)) * torch.tanh(self.body(two)))


@dataclass
class Output:
    """What a model of a library returns."""

    logits: Tensor
    features: Tensor


class Several(nn.Module):
    """Several outputs."""

    def __init__(self, wrap):
        super().__init__()
        self.body, self.head, self.wrap = nn.Linear(4, 6), head(6), wrap

    def forward(self, x):
        h = torch.tanh(self.body(x))
        return self.wrap(self.head(h), h)


class Names(nn.Module):
    """Inputs in one dictionary."""

    def __init__(self):
        super().__init__()
        self.two = Two()

    def forward(self, batch):
        return self.two(batch["one"], batch["two"])


add("two inputs, in a tuple", Two, also(), traces=None)
add("two inputs, by name", Two, also("one", "two"), traces=None)
add("a dictionary as the one input", Names, also("one", "two"), traces=None)
add("outputs in a tuple", lambda: Several(lambda z, h: (z, h)), real(4), traces=None)
add(
    "outputs in a dictionary (segmentation)",
    lambda: Several(lambda z, h: OrderedDict(out=z, aux=h)),
    real(4),
    traces=None,
)
add("outputs in a dataclass, logits", lambda: Several(Output), real(4), traces=None)
