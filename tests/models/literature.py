"""Small instances of the literature's networks, with everything on that can be on."""

from typing import Any, NamedTuple

import torch

from metaloss import registry


class Small(NamedTuple):
    """Options, and the shape of a row."""

    options: dict[str, Any]
    shape: tuple[int, ...]


RICH = {
    "lenet5": Small({}, (1, 8, 8)),
    "resnet18": Small({"width": 2}, (3, 8, 8)),
    "vgg16": Small({"width": 2}, (3, 12, 8)),
    "allcnnc": Small({"dropout_input": 0.1, "dropout": 0.3}, (3, 9, 12)),
    "squeezenet": Small({"dropout": 0.3}, (3, 8, 10)),
    "wrn": Small({"depth": 10, "widen": 1, "dropout": 0.2}, (3, 8, 8)),
    "vit": Small({"layers": 2, "width": 8, "heads": 2, "dropout": 0.2}, (3, 8, 12)),
    "gpt": Small({"layers": 2, "width": 8, "heads": 2, "dropout": 0.2}, (5,)),
}


def built(name, options, shape, outputs=3, seed=0):
    """Return a registered model with weights drawn from a seed."""
    part = registry.get("model", name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return part.build(part.config_class(**options), input_shape=shape, outputs=outputs)


def drawn(*shape, seed=0):
    """Return normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows_for(name, count, seed=0):
    """Return rows that a small model takes, with targets: classes, or tokens at each position."""
    shape, draw = RICH[name].shape, torch.Generator().manual_seed(seed)
    if name == "gpt":
        inputs, targets = torch.randint(3, (2, count, *shape), generator=draw)
        return inputs, targets
    return drawn(count, *shape, seed=seed), torch.randint(3, (count,), generator=draw)


def count(model):
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
