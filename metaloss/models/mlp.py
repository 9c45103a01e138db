"""Fully connected layers."""

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
)


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """Options of the ``mlp`` model."""

    hidden: list[int] = field(
        default_factory=lambda: [100, 100], metadata={"help": "widths of the hidden layers"}
    )
    activation: Activation = field(
        default=Activation.relu, metadata={"help": "of the hidden layers"}
    )
    dropout: float = field(default=0.0, metadata={"help": "after every hidden layer, 0 to below 1"})
    batch_norm: bool = field(
        default=False, metadata={"help": "batch normalisation before every activation"}
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_widths("model.hidden", self.hidden)
        check_dropout(self.dropout)


class MLP(nn.Module):
    """Fully connected layers on the flattened input.

    A hidden layer is linear, then batch normalisation if asked for, activation, dropout.

    Args:
        config: The options.
        input_shape: Shape of one row of the inputs, of any number of dimensions.
        outputs: C.

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
            layers.append(activation_module(config.activation))
            if config.dropout > 0:
                layers.append(nn.Dropout(config.dropout))
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return raw outputs (B, C) for ``inputs`` (B, *input_shape)."""
        return self.head(self.body(inputs))
