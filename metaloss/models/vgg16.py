"""VGG-16 with batch normalisation, for small images."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from metaloss.errors import check_whole
from metaloss.models.layers import HeConv2d, NormalLinear
from metaloss.models.options import check_image
from metaloss.options import Options

# Configuration D of the paper: for each stage, the number of convolutions, and channels / width.
STAGES = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))


@dataclass(frozen=True, kw_only=True)
class VGG16Config(Options, group="model"):
    """Options of the ``vgg16`` model."""

    width: int = field(
        default=64,
        metadata={"help": "channels of the first stage; the last ones have 8 times as many"},
    )

    def __post_init__(self) -> None:
        check_whole("model.width", self.width, 1)


class VGG16(nn.Module):
    """Thirteen 3×3 convolutions in five stages, each with max-pooling, then a linear layer.

    The usual form for CIFAR: batch normalisation after every convolution, and one linear layer
    instead of the paper's three with 4,096 units. The convolutions have no biases, because batch
    normalisation removes constants; so there are 4,224 parameters fewer than the usual 14,728,266.
    Pooling rounds sizes up, so that images may have any size. The linear layer gets the mean over
    the last maps.

    Convolutions are initialised by He's rule; the last layer's weights are normal with standard
    deviation 0.01.

    Args:
        input_shape: (channels, H, W).
        outputs: C, the number of outputs.

    Raises:
        MetalossError: If a shape or an option is out of range.

    Reference:
        Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
        ICLR 2015, table 1.

    Example:
        >>> import torch
        >>> model = VGG16(VGG16Config(width=4), input_shape=(3, 32, 32), outputs=10)
        >>> model(torch.zeros(4, 3, 32, 32)).shape
        torch.Size([4, 10])
    """

    Config = VGG16Config

    def __init__(self, config: VGG16Config, *, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        before, _, _ = check_image("vgg16", input_shape, outputs)
        layers: list[nn.Module] = []
        for convolutions, widths in STAGES:
            after = widths * config.width
            for _ in range(convolutions):
                layers.append(HeConv2d(before, after, 3, padding=1, bias=False))
                layers += [nn.BatchNorm2d(after), nn.ReLU()]
                before = after
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.body = nn.Sequential(*layers)
        self.head = NormalLinear(before, outputs, std=0.01)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return raw outputs (B, C) for ``inputs`` (B, channels, H, W)."""
        return self.head(self.body(inputs).mean((2, 3)))
