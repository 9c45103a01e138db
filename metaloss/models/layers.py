"""Layers with the initialisation of published networks, in ``reset_parameters``."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import nn


class HeConv2d(nn.Conv2d):
    """A convolution with normal weights of variance 2 / fan-out, and zero biases.

    Fan-out is the area of the kernel times the output channels. It keeps the variance of gradients
    in the backward pass. The authors of ResNet and Wide ResNet use it.

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
    """The same with variance 2 / fan-in, which keeps the variance of outputs in the forward pass.

    For networks without normalisation: with fan-out, the outputs of a layer from 192 channels to 10
    would be four times too large at first.

    Reference:
        He, Zhang, Ren & Sun, "Delving Deep into Rectifiers", ICCV 2015, equation 10.

    Example:
        >>> weight = HeFanInConv2d(64, 3, 3).weight
        >>> 0.9 < weight.std() / (2 / (64 * 3 * 3)) ** 0.5 < 1.1
        tensor(True)
    """

    fan = "fan_in"


class NormalLinear(nn.Linear):
    """A linear layer with normal weights of standard deviation ``std``, and zero biases.

    The deviation is 0.01 in VGG, 0.02 in GPT-2.

    Example:
        >>> NormalLinear(3, 2, std=0.0).weight.abs().sum()
        tensor(0., grad_fn=<SumBackward0>)
    """

    def __init__(self, before: int, after: int, *, std: float) -> None:
        # Set first, because the constructor of the base class draws the weights.
        self.std = std
        super().__init__(before, after)

    def reset_parameters(self) -> None:
        """Draw the weights."""
        nn.init.normal_(self.weight, std=self.std)
        nn.init.zeros_(self.bias)


class NormalTable(nn.Module):
    """Learned rows, such as embeddings, with normal values of standard deviation 0.02.

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
