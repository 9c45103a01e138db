"""A vision transformer."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from metaloss.errors import MetalossError, check_whole
from metaloss.models.layers import NormalLinear, NormalTable
from metaloss.models.options import check_image
from metaloss.models.transformer import STD, Block, TransformerConfig

EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class ViTConfig(TransformerConfig):
    """Options of the ``vit`` model."""

    patch: int = field(default=4, metadata={"help": "height and width of a patch"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("model.patch", self.patch, 1)


class ViT(nn.Module):
    """Transformer blocks over image patches and a class token, then a linear layer on the token.

    With patches of 16×16, 12 layers, width 192, 3 heads, and images and classes of ImageNet, this
    is ViT-Ti/16 with 5,717,416 parameters.

    Weights are initialised as in GPT-2, unlike in the paper, and those of the patches as torch
    does.

    Args:
        input_shape: (channels, H, W); H and W are multiples of the patch.
        outputs: C, the number of outputs.

    Raises:
        MetalossError: If a shape or an option is out of range.

    Reference:
        Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, section 3.1.

    Example:
        >>> config = ViTConfig(layers=2, width=16, heads=2)
        >>> ViT(config, input_shape=(3, 32, 32), outputs=10)(torch.zeros(4, 3, 32, 32)).shape
        torch.Size([4, 10])
    """

    Config = ViTConfig

    def __init__(self, config: ViTConfig, *, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        channels, height, width = check_image("vit", input_shape, outputs)
        if height % config.patch or width % config.patch:
            raise MetalossError(
                f"model.patch={config.patch} with input_shape={tuple(input_shape)}: expected a "
                "divisor of H and W"
            )
        patches = (height // config.patch) * (width // config.patch)
        self.patches = nn.Conv2d(channels, config.width, config.patch, stride=config.patch)
        self.token = NormalTable(1, config.width)
        self.positions = NormalTable(1 + patches, config.width)
        self.dropout = nn.Dropout(config.dropout) if config.dropout > 0 else nn.Identity()
        self.blocks = nn.Sequential(
            *(Block(config, causal=False, eps=EPS) for _ in range(config.layers))
        )
        self.norm = nn.LayerNorm(config.width, eps=EPS)
        self.head = NormalLinear(config.width, outputs, std=STD)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return raw outputs (B, C) for ``inputs`` (B, channels, H, W)."""
        patches = self.patches(inputs).flatten(2).transpose(1, 2)
        token = self.token.weight.expand(len(inputs), 1, -1)
        x = torch.cat((token, patches), 1) + self.positions.weight
        x = self.blocks(self.dropout(x))
        return self.head(self.norm(x[:, 0]))
