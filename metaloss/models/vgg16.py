"""VGG-16 with batch normalisation, for small pictures."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from metaloss.models.layers import HeConv2d, NormalLinear
from metaloss.models.options import check_picture, check_positive

# Configuration D of the paper: for each stage the convolutions and their channels in widths.
STAGES = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))


@dataclass(frozen=True, kw_only=True)
class VGG16Config:
    """Options of the ``vgg16`` model."""

    width: int = field(
        default=64,
        metadata={"help": "channels of the first stage; the last ones have 8 times more"},
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_positive("model.width", self.width)


class VGG16(nn.Module):
    """Thirteen 3×3 convolutions in five stages, each ended by max-pooling, and a linear layer.

    The usual form for CIFAR: normalisation after every convolution, and one linear layer on the
    1×1 map that a 32×32 picture comes down to, where the paper has three with 4,096 units. The
    convolutions have no biases, since the normalisation takes any constant away: 4,224 parameters
    less than the common count of 14,728,266. Pooling rounds sizes up, so that pictures of any size
    can be taken; the mean over what is left goes to the linear layer.

    Convolutions begin as He's; the last layer's weights begin normal, of standard deviation 0.01.

    Args:
        config: The options.
        input_shape: (channels, H, W).
        outputs: C.

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
        before, _, _ = check_picture("vgg16", input_shape, outputs)
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
