"""One linear layer: logistic or linear regression, depending on the task's link."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor, nn

from metaloss.models.options import check_shapes
from metaloss.options import Options


@dataclass(frozen=True, kw_only=True)
class LinearConfig(Options, group="model"):
    """Options of the ``linear`` model."""

    bias: bool = field(default=True, metadata={"help": "whether every output has a bias"})


class Linear(nn.Module):
    """Logistic or linear regression: ``W x + b`` on the flattened input.

    Args:
        input_shape: The shape of one row, with 1 to 8 dimensions.
        outputs: C, the number of outputs.

    Raises:
        MetalossError: If a shape or an option is out of range.

    Example:
        >>> import torch
        >>> model = Linear(LinearConfig(), input_shape=(1, 8, 8), outputs=10)
        >>> model(torch.zeros(4, 1, 8, 8)).shape
        torch.Size([4, 10])
    """

    Config = LinearConfig

    def __init__(self, config: LinearConfig, *, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        check_shapes("linear", input_shape, outputs, range(1, 9))
        self.flatten = nn.Flatten()
        self.head = nn.Linear(math.prod(input_shape), outputs, bias=config.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return raw outputs (B, C) for ``inputs`` (B, *input_shape)."""
        return self.head(self.flatten(inputs))
