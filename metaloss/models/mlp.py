"""A multilayer perceptron."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor, nn

from metaloss.models.options import (
    Activation,
    activation_module,
    check_dropout,
    check_shapes,
    check_widths,
    dropout,
)
from metaloss.options import Options


@dataclass(frozen=True, kw_only=True)
class MLPConfig(Options, group="model"):
    """Options of the ``mlp`` model."""

    hidden: list[int] = field(
        default_factory=lambda: [100, 100], metadata={"help": "widths of the hidden layers"}
    )
    activation: Activation = field(
        default=Activation.relu, metadata={"help": "of the hidden layers"}
    )
    dropout: float = field(
        default=0.0, metadata={"help": "rate after every hidden layer, in [0, 1)"}
    )
    batch_norm: bool = field(
        default=False, metadata={"help": "batch normalisation before every activation"}
    )

    def __post_init__(self) -> None:
        check_widths("model.hidden", self.hidden)
        check_dropout(self.dropout)


class MLP(nn.Module):
    """Fully connected layers on the flattened input.

    A hidden layer is a linear map, batch normalisation (optional), activation and dropout.

    Args:
        input_shape: The shape of one row, with 1 to 8 dimensions.
        outputs: C, the number of outputs.

    Raises:
        MetalossError: If a shape or an option is out of range.

    Example:
        >>> import torch
        >>> model = MLP(MLPConfig(hidden=[32]), input_shape=(1, 8, 8), outputs=10)
        >>> model(torch.zeros(4, 1, 8, 8)).shape
        torch.Size([4, 10])
    """

    Config = MLPConfig

    def __init__(self, config: MLPConfig, *, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        check_shapes("mlp", input_shape, outputs, range(1, 9))
        widths = [math.prod(input_shape), *config.hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(widths):
            layers.append(nn.Linear(before, after))
            if config.batch_norm:
                layers.append(nn.BatchNorm1d(after))
            layers += [activation_module(config.activation), *dropout(config.dropout)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return raw outputs (B, C) for ``inputs`` (B, *input_shape)."""
        return self.head(self.body(inputs))
