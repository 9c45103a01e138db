"""Layers that begin as the literature's networks do, drawn anew by their own reset_parameters."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import nn


class HeConv2d(nn.Conv2d):
    """A convolution whose weights begin as He's: normal, of variance 2 / fan-out; biases are zero.

    Fan-out, the kernel's area times the channels that come out, keeps the variance of gradients on
    their way back, and is what the authors of ResNet and Wide ResNet use.

    Reference:
        He, Zhang, Ren & Sun, "Delving Deep into Rectifiers", ICCV 2015, equation 14.

    Example:
        >>> weight = HeConv2d(3, 64, 3).weight
        >>> 0.9 < weight.std() / (2 / (64 * 3 * 3)) ** 0.5 < 1.1
        tensor(True)
    """

    fan: ClassVar[Literal["fan_in", "fan_out"]] = "fan_out"

    def reset_parameters(self) -> None:
        """Draw the weights."""
        nn.init.kaiming_normal_(self.weight, mode=self.fan, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class HeFanInConv2d(HeConv2d):
    """The same with variance 2 / fan-in, which keeps that of the outputs on their way.

    For networks without normalisation whose convolutions narrow and widen: by fan-out, a layer
    from 192 channels to 10 would begin with outputs four times too large.

    Reference:
        He, Zhang, Ren & Sun, "Delving Deep into Rectifiers", ICCV 2015, equation 10.

    Example:
        >>> weight = HeFanInConv2d(64, 3, 3).weight
        >>> 0.9 < weight.std() / (2 / (64 * 3 * 3)) ** 0.5 < 1.1
        tensor(True)
    """

    fan = "fan_in"


class NormalLinear(nn.Linear):
    """A linear layer whose weights begin normal with standard deviation ``std``; biases are zero.

    Args:
        before: Features that come in.
        after: Features that go out.
        std: 0.01 in VGG, 0.02 in GPT-2.

    Example:
        >>> NormalLinear(3, 2, std=0.0).weight.abs().sum()
        tensor(0., grad_fn=<SumBackward0>)
    """

    def __init__(self, before: int, after: int, *, std: float) -> None:
        # Before the base class, which draws the weights in its constructor.
        self.std = std
        super().__init__(before, after)

    def reset_parameters(self) -> None:
        """Draw the weights."""
        nn.init.normal_(self.weight, std=self.std)
        nn.init.zeros_(self.bias)


class NormalTable(nn.Module):
    """A table of learned rows, such as embeddings, that begin normal with standard deviation 0.02.

    Args:
        rows: The number of rows.
        width: The width of each.

    Example:
        >>> NormalTable(10, 4).weight.shape
        torch.Size([10, 4])
    """

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the rows."""
        nn.init.normal_(self.weight, std=0.02)
