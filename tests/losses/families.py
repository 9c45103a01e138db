"""Every registered loss of outputs of this distribution, built in float64 from a fixed seed.

Losses of rows have their own tests, and the contract checks.
"""

import torch
from torch import Tensor
from torch.func import functional_call

from metaloss import registry
from metaloss.losses import LearnedLoss
from metaloss.losses.handcrafted import LikelihoodLoss
from metaloss.losses.of_rows.base import RowLoss
from metaloss.types import Link

BUILT_IN = [
    name
    for name in registry.names("loss")
    if name != "load"
    and registry.get("loss", name).source.startswith("metaloss ")
    and not issubclass(registry.get("loss", name).cls, RowLoss)
]
LINKS = list(Link)
# What has no default outside of a run.
NEEDED = {"logit_adjusted": {"shares": [0.4, 0.3, 0.2, 0.1]}}


def build(name: str, link: Link | str = Link.softmax, *, seed: int = 0, **options) -> LearnedLoss:
    part = registry.get("loss", name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return part.build(
            part.config_class(**{**NEEDED.get(name, {}), **options}), link=link
        ).double()


def fits(name: str, link: Link) -> bool:
    """Whether a family is meant for a link: likelihoods need probabilities, shares need classes."""
    if name == "logit_adjusted":
        return link is Link.softmax
    return link is not Link.identity or not issubclass(
        registry.get("loss", name).cls, LikelihoodLoss
    )


CASES = [(name, link) for name in BUILT_IN for link in LINKS if fits(name, link)]
LEARNED = [(name, link) for name, link in CASES if list(build(name, link).parameters())]


def rows(link: Link, shape: tuple[int, ...] = (6, 4), seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return raw outputs (B, C, *) in float64 and targets that fit the link."""
    draw = torch.Generator().manual_seed(seed)
    outputs = 2 * torch.randn(shape, generator=draw, dtype=torch.float64)
    if link is Link.softmax:
        target = torch.randint(shape[1], (shape[0], *shape[2:]), generator=draw)
    elif link is Link.sigmoid:
        target = torch.randint(2, shape, generator=draw).double()
    else:
        target = torch.randn(shape, generator=draw, dtype=torch.float64)
    return outputs, target


def value(loss: LearnedLoss, phi: dict[str, Tensor], outputs: Tensor, target: Tensor) -> Tensor:
    return functional_call(loss, phi, (outputs, target))


def phi_of(loss: LearnedLoss) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in loss.named_parameters()}
