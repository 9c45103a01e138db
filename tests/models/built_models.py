"""Models with weights from a seed."""

import torch

from metaloss.models.cnn import CNN
from metaloss.models.gru import GRU
from metaloss.models.linear import Linear
from metaloss.models.mlp import MLP

MODELS = {"linear": Linear, "mlp": MLP, "cnn": CNN, "gru": GRU}


def built(cls, config, shape, outputs=3, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cls(config, input_shape=shape, outputs=outputs)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
