"""SqueezeNet 1.1 for small images."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaloss.models.layers import HeFanInConv2d, NormalLinear
from metaloss.models.options import check_dropout, check_image, dropout
from metaloss.options import Options

# For each fire module: input channels, squeezed channels, channels of each of the two expansions. A
# stage begins with pooling.
STAGES = (
    ((64, 16, 64), (128, 16, 64)),
    ((128, 32, 128), (256, 32, 128)),
    ((256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256)),
)


@dataclass(frozen=True, kw_only=True)
class SqueezeNetConfig(Options, group="model"):
    """Options of the ``squeezenet`` model."""

    dropout: float = field(
        default=0.5, metadata={"help": "rate before the last layer, in [0, 1); 0.5 in the paper"}
    )

    def __post_init__(self) -> None:
        check_dropout(self.dropout)


class SqueezeNet(nn.Module):
    """A convolution, then eight fire modules in three stages. A stage begins with max-pooling.

    Version 1.1 as in torchvision, with two differences. The first convolution has stride 1 and
    padding, so that a 32×32 image becomes 4×4 and not 1×1. The last 1×1 convolution has no ReLU, so
    that outputs may be negative; it is computed after the mean over the image, which gives the same
    result. With a thousand outputs there are 1,235,496 parameters, as in torchvision.

    Convolutions are initialised by He's rule with fan-in. The last layer's weights are normal with
    standard deviation 0.01, as in the paper.

    Args:
        input_shape: (channels, H, W), at least 8×8.
        outputs: C, the number of outputs.

    Raises:
        MetalossError: If a shape or an option is out of range.

    Reference:
        Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", 2016.

    Example:
        >>> model = SqueezeNet(SqueezeNetConfig(), input_shape=(3, 32, 32), outputs=10)
        >>> model(torch.zeros(4, 3, 32, 32)).shape
        torch.Size([4, 10])
    """

    Config = SqueezeNetConfig

    def __init__(
        self, config: SqueezeNetConfig, *, input_shape: tuple[int, ...], outputs: int
    ) -> None:
        super().__init__()
        channels, _, _ = check_image("squeezenet", input_shape, outputs, least=8)
        layers: list[nn.Module] = [HeFanInConv2d(channels, 64, 3, padding=1), nn.ReLU()]
        for stage in STAGES:
            layers.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
            layers += [Fire(*channels_of) for channels_of in stage]
        layers += dropout(config.dropout)
        self.body = nn.Sequential(*layers)
        self.head = NormalLinear(512, outputs, std=0.01)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return raw outputs (B, C) for ``inputs`` (B, channels, H, W)."""
        return self.head(self.body(inputs).mean((2, 3)))


class Fire(nn.Module):
    """A 1×1 convolution to few channels, then a 1×1 and a 3×3 convolution side by side.

    The channels are ``before``, then ``squeezed``, then ``expanded`` of each of the last two.

    Example:
        >>> Fire(8, 2, 3)(torch.zeros(1, 8, 5, 5)).shape
        torch.Size([1, 6, 5, 5])
    """

    def __init__(self, before: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = HeFanInConv2d(before, squeezed, 1)
        self.expand_1x1 = HeFanInConv2d(squeezed, expanded, 1)
        self.expand_3x3 = HeFanInConv2d(squeezed, expanded, 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, 2 · expanded, H, W) for (B, before, H, W)."""
        squeezed = F.relu(self.squeeze(inputs))
        return F.relu(torch.cat((self.expand_1x1(squeezed), self.expand_3x3(squeezed)), 1))
