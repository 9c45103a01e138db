"""ResNet-18 for small images."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from metaloss.errors import check_whole
from metaloss.models.layers import HeConv2d
from metaloss.models.options import check_image
from metaloss.options import Options


@dataclass(frozen=True, kw_only=True)
class ResNet18Config(Options, group="model"):
    """Options of the ``resnet18`` model."""

    width: int = field(
        default=64,
        metadata={"help": "channels of the first stage; each further stage doubles them"},
    )

    def __post_init__(self) -> None:
        check_whole("model.width", self.width, 1)


class ResNet18(nn.Module):
    """Four stages of two residual blocks, then the mean over the image and a linear layer.

    The first layer is the usual one for CIFAR: one 3×3 convolution at full size without pooling.
    The paper's ResNet-18 for ImageNet begins with a 7×7 convolution of stride 2 and max-pooling.
    Shortcuts that change the size are 1×1 convolutions (the paper's option B). With three channels,
    ten outputs and width 64, the model has 11,173,962 parameters.

    Convolutions are initialised by He's rule, the last layer as torch does.

    Args:
        input_shape: (channels, H, W).
        outputs: C, the number of outputs.

    Raises:
        MetalossError: If a shape or an option is out of range.

    Reference:
        He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, table 1.

    Example:
        >>> import torch
        >>> model = ResNet18(ResNet18Config(width=8), input_shape=(3, 32, 32), outputs=10)
        >>> model(torch.zeros(4, 3, 32, 32)).shape
        torch.Size([4, 10])
    """

    Config = ResNet18Config

    def __init__(
        self, config: ResNet18Config, *, input_shape: tuple[int, ...], outputs: int
    ) -> None:
        super().__init__()
        channels, _, _ = check_image("resnet18", input_shape, outputs)
        widths = [config.width * factor for factor in (1, 1, 2, 4, 8)]
        self.stem = nn.Sequential(
            HeConv2d(channels, widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        blocks: list[nn.Module] = []
        for stage, (before, after) in enumerate(pairwise(widths)):
            blocks += [ResidualBlock(before, after, 1 if stage == 0 else 2)]
            blocks += [ResidualBlock(after, after, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return raw outputs (B, C) for ``inputs`` (B, channels, H, W)."""
        return self.head(self.blocks(self.stem(inputs)).mean((2, 3)))


class ResidualBlock(nn.Module):
    """``relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))``, with 3×3 convolutions.

    The first one has the stride, and changes the channels from ``before`` to ``after``.

    Example:
        >>> import torch
        >>> ResidualBlock(3, 8, 2)(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            HeConv2d(before, after, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            HeConv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                HeConv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, after, H / stride, W / stride), rounded up, for (B, before, H, W)."""
        return F.relu(self.body(inputs) + self.shortcut(inputs))
