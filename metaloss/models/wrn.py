"""Wide residual networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from metaloss.errors import MetalossError, check_whole
from metaloss.models.layers import HeConv2d
from metaloss.models.options import check_dropout, check_image
from metaloss.options import Options


@dataclass(frozen=True, kw_only=True)
class WRNConfig(Options, group="model"):
    """Options of the ``wrn`` model: WRN-28-10 is ``depth=28 widen=10``."""

    depth: int = field(default=16, metadata={"help": "layers with weights: 10, 16, 22, 28, ..."})
    widen: int = field(default=4, metadata={"help": "factor of the number of channels"})
    dropout: float = field(
        default=0.0, metadata={"help": "rate between a block's convolutions, in [0, 1)"}
    )

    def __post_init__(self) -> None:
        check_whole("model.depth", self.depth, 1)
        check_whole("model.widen", self.widen, 1)
        check_dropout(self.dropout)
        if self.depth < 10 or self.depth % 6 != 4:
            raise MetalossError(
                f"model.depth={self.depth}: expected 10, 16, 22, 28, ...: 4 more than a multiple "
                "of 6"
            )


class WRN(nn.Module):
    """Three groups of (depth − 4) / 6 residual blocks with 16, 32 and 64 times ``widen`` channels.

    Normalisation and activation come before each convolution. Convolutions are initialised by He's
    rule, as in the authors' code, the last layer as torch does.

    Args:
        input_shape: (channels, H, W).
        outputs: C, the number of outputs.

    Raises:
        MetalossError: If a shape or an option is out of range.

    Reference:
        Zagoruyko & Komodakis, "Wide Residual Networks", BMVC 2016, table 1.

    Example:
        >>> import torch
        >>> config = WRNConfig(depth=10, widen=1)
        >>> WRN(config, input_shape=(3, 32, 32), outputs=10)(torch.zeros(4, 3, 32, 32)).shape
        torch.Size([4, 10])
    """

    Config = WRNConfig

    def __init__(self, config: WRNConfig, *, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        channels, _, _ = check_image("wrn", input_shape, outputs)
        widths = [16, *(width * config.widen for width in (16, 32, 64))]
        self.stem = HeConv2d(channels, 16, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        for group, (before, after) in enumerate(pairwise(widths)):
            blocks.append(WideBlock(before, after, 1 if group == 0 else 2, config.dropout))
            more = (config.depth - 4) // 6 - 1
            blocks += [WideBlock(after, after, 1, config.dropout) for _ in range(more)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return raw outputs (B, C) for ``inputs`` (B, channels, H, W)."""
        maps = F.relu(self.norm(self.blocks(self.stem(inputs))))
        return self.head(maps.mean((2, 3)))


class WideBlock(nn.Module):
    """``x + conv(dropout(relu(norm(conv(relu(norm(x)))))))``, with 3×3 convolutions.

    The first one has the stride, and changes the channels from ``before`` to ``after``. If the size
    changes, the shortcut is a 1×1 convolution of ``relu(norm(x))``.

    Example:
        >>> import torch
        >>> WideBlock(3, 8, 2, 0.0)(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(self, before: int, after: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU())
        self.body = nn.Sequential(
            HeConv2d(before, after, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            *([nn.Dropout(dropout)] if dropout > 0 else []),
            HeConv2d(after, after, 3, padding=1, bias=False),
        )
        self.shortcut: nn.Module | None = None
        if stride != 1 or before != after:
            self.shortcut = HeConv2d(before, after, 1, stride=stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, after, H / stride, W / stride), rounded up, for (B, before, H, W)."""
        entered = self.enter(inputs)
        kept = inputs if self.shortcut is None else self.shortcut(entered)
        return kept + self.body(entered)
