"""LeNet-5, in its common modern form."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn import functional as F

from metaloss.models.options import Activation, activation_module, check_image
from metaloss.options import Options

# The paper pads MNIST's 28×28 digits to this size.
FIELD = 32


@dataclass(frozen=True, kw_only=True)
class LeNet5Config(Options, group="model"):
    """Options of the ``lenet5`` model."""

    activation: Activation = field(
        default=Activation.relu, metadata={"help": "of the hidden layers; the paper's is tanh"}
    )


class LeNet5(nn.Module):
    """Two 5×5 convolutions (6, 16) with average pooling, then layers of 120, 84 and C units.

    Images smaller than 32×32 are padded with zeros to that size, as in the paper. Unlike in the
    paper, layer C3 sees all maps of S2, pooling has no weights, and the last layer is linear. So
    there are 61,706 parameters; the paper has 60,000.

    Weights are initialised as torch does: uniformly within ±1/√fan-in.

    Args:
        input_shape: (channels, H, W).
        outputs: C, the number of outputs.

    Raises:
        MetalossError: If a shape or an option is out of range.

    Reference:
        LeCun, Bottou, Bengio & Haffner, "Gradient-Based Learning Applied to Document Recognition",
        Proceedings of the IEEE 1998, section II.B.

    Example:
        >>> import torch
        >>> model = LeNet5(LeNet5Config(), input_shape=(1, 28, 28), outputs=10)
        >>> model(torch.zeros(4, 1, 28, 28)).shape
        torch.Size([4, 10])
        >>> sum(parameter.numel() for parameter in model.parameters())
        61706
    """

    Config = LeNet5Config

    def __init__(self, config: LeNet5Config, *, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        channels, height, width = check_image("lenet5", input_shape, outputs)
        vertical, horizontal = max(FIELD - height, 0), max(FIELD - width, 0)
        self._margins = [
            horizontal // 2,
            horizontal - horizontal // 2,
            vertical // 2,
            vertical - vertical // 2,
        ]
        rows, columns = _after_pooling(height + vertical), _after_pooling(width + horizontal)

        def activation() -> nn.Module:
            return activation_module(config.activation)

        self.body = nn.Sequential(
            nn.Conv2d(channels, 6, 5),
            activation(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5),
            activation(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * rows * columns, 120),
            activation(),
            nn.Linear(120, 84),
            activation(),
        )
        self.head = nn.Linear(84, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return raw outputs (B, C) for ``inputs`` (B, channels, H, W)."""
        if any(self._margins):
            inputs = F.pad(inputs, self._margins)
        return self.head(self.body(inputs))


def _after_pooling(size: int) -> int:
    """Return the size of a dimension after two 5×5 convolutions, each with pooling by 2."""
    return ((size - 4) // 2 - 4) // 2
