"""Modules with weights from a seed."""

import torch


def seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().double()


def inputs(*shape: int, seed: int = 1) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw, dtype=torch.float64)
