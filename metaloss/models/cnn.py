"""A small convolutional network for images or signals."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor, nn

from metaloss.errors import check_range, check_whole
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
class CNNConfig(Options, group="model"):
    """Options of the ``cnn`` model."""

    channels: list[int] = field(
        default_factory=lambda: [16, 32], metadata={"help": "output channels of each convolution"}
    )
    kernel: int = field(default=3, metadata={"help": "width of the kernels, odd"})
    activation: Activation = field(
        default=Activation.relu, metadata={"help": "of the hidden layers"}
    )
    dropout: float = field(default=0.0, metadata={"help": "rate before the last layer, in [0, 1)"})
    batch_norm: bool = field(
        default=False, metadata={"help": "batch normalisation after every convolution"}
    )

    def __post_init__(self) -> None:
        check_widths("model.channels", self.channels)
        check_whole("model.kernel", self.kernel, 1)
        check_range("model.kernel", self.kernel, self.kernel % 2 == 1, "an odd number")
        check_dropout(self.dropout)


class CNN(nn.Module):
    """Convolutions, each followed by average pooling to half the size, then a linear layer.

    Average pooling is linear, so that it is differentiable everywhere. A dimension of size 1 is not
    pooled.

    Args:
        input_shape: (channels, H, W) for images; (channels, L) or (L,) for signals.
        outputs: C, the number of outputs.

    Raises:
        MetalossError: If a shape or an option is out of range.

    Example:
        >>> import torch
        >>> model = CNN(CNNConfig(), input_shape=(40,), outputs=10)
        >>> model(torch.zeros(4, 40)).shape
        torch.Size([4, 10])
    """

    Config = CNNConfig

    def __init__(self, config: CNNConfig, *, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        check_shapes("cnn", input_shape, outputs, (1, 2, 3))
        self._adds_channel = len(input_shape) == 1
        first, *sizes = (1, *input_shape) if self._adds_channel else input_shape
        layers: list[nn.Module] = []
        for before, after in pairwise([first, *config.channels]):
            pooled = [min(2, size) for size in sizes]
            layers += _stage(config, before, after, pooled)
            sizes = [size // factor for size, factor in zip(sizes, pooled, strict=True)]
        layers += [nn.Flatten(), *dropout(config.dropout)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(config.channels[-1] * math.prod(sizes), outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return raw outputs (B, C) for ``inputs`` (B, *input_shape)."""
        if self._adds_channel:
            inputs = inputs.unsqueeze(1)
        return self.head(self.body(inputs))


def _stage(config: CNNConfig, before: int, after: int, pooled: list[int]) -> list[nn.Module]:
    padding = config.kernel // 2
    activation = activation_module(config.activation)
    if len(pooled) == 2:
        convolution: nn.Module = nn.Conv2d(before, after, config.kernel, padding=padding)
        norm: nn.Module = nn.BatchNorm2d(after)
        pool: nn.Module = nn.AvgPool2d((pooled[0], pooled[1]))
    else:
        convolution = nn.Conv1d(before, after, config.kernel, padding=padding)
        norm, pool = nn.BatchNorm1d(after), nn.AvgPool1d(pooled[0])
    return [convolution, *([norm] if config.batch_norm else []), activation, pool]
