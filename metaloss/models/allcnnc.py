"""All-CNN-C: convolutions only."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from metaloss.models.layers import HeFanInConv2d
from metaloss.models.options import check_dropout, check_image, dropout
from metaloss.options import Options


@dataclass(frozen=True, kw_only=True)
class AllCNNCConfig(Options, group="model"):
    """Options of the ``allcnnc`` model; the defaults are the paper's."""

    dropout_input: float = field(default=0.2, metadata={"help": "rate on the image, in [0, 1)"})
    dropout: float = field(
        default=0.5, metadata={"help": "rate after each convolution of stride 2, in [0, 1)"}
    )

    def __post_init__(self) -> None:
        check_dropout(self.dropout_input, "model.dropout_input")
        check_dropout(self.dropout)


class AllCNNC(nn.Module):
    """Nine convolutions, two of them of stride 2 instead of pooling, then the mean over the image.

    Channels 96, 96, 96 (stride 2), 192, 192, 192 (stride 2), 192 (no padding: 8×8 becomes 6×6),
    192 (1×1), C (1×1), with ReLU between them. Unlike in the paper's table, there is no ReLU after
    the last one, so that outputs may be negative. With three channels and ten outputs, the model
    has 1,369,738 parameters; the paper says 1.4 M.

    Weights are initialised by He's rule with fan-in, biases with zero.

    Args:
        input_shape: (channels, H, W), at least 9×9.
        outputs: C, the number of outputs.

    Raises:
        MetalossError: If a shape or an option is out of range.

    Reference:
        Springenberg, Dosovitskiy, Brox & Riedmiller, "Striving for Simplicity: The All
        Convolutional Net", ICLR 2015 workshop, tables 1 and 2.

    Example:
        >>> import torch
        >>> model = AllCNNC(AllCNNCConfig(), input_shape=(3, 32, 32), outputs=10)
        >>> model(torch.zeros(4, 3, 32, 32)).shape
        torch.Size([4, 10])
    """

    Config = AllCNNCConfig

    def __init__(
        self, config: AllCNNCConfig, *, input_shape: tuple[int, ...], outputs: int
    ) -> None:
        super().__init__()
        channels, _, _ = check_image("allcnnc", input_shape, outputs, least=9)
        layers = dropout(config.dropout_input)
        for before, after in ((channels, 96), (96, 192)):
            layers += [HeFanInConv2d(before, after, 3, padding=1), nn.ReLU()]
            layers += [HeFanInConv2d(after, after, 3, padding=1), nn.ReLU()]
            layers += [HeFanInConv2d(after, after, 3, stride=2, padding=1), nn.ReLU()]
            layers += dropout(config.dropout)
        layers += [HeFanInConv2d(192, 192, 3), nn.ReLU()]
        layers += [HeFanInConv2d(192, 192, 1), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = HeFanInConv2d(192, outputs, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return raw outputs (B, C) for ``inputs`` (B, channels, H, W)."""
        return self.head(self.body(inputs)).mean((2, 3))
