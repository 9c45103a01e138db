"""The transformer block of ``gpt`` and ``vit``, in plain tensor operations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from metaloss.errors import MetalossError, check_whole
from metaloss.models.layers import NormalLinear
from metaloss.models.options import check_dropout, dropout
from metaloss.options import Options

STD = 0.02


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(Options, group="model"):
    """Options of a stack of transformer blocks."""

    layers: int = field(default=4, metadata={"help": "number of blocks"})
    width: int = field(default=128, metadata={"help": "width of the vector at each position"})
    heads: int = field(default=4, metadata={"help": "attention heads; divides the width"})
    dropout: float = field(
        default=0.0,
        metadata={"help": "rate on embeddings, attention and residual branches, in [0, 1)"},
    )

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads"):
            check_whole(f"model.{name}", getattr(self, name), 1)
        if self.width % self.heads:
            raise MetalossError(
                f"model.heads={self.heads} with width={self.width}: expected a divisor of the width"
            )
        check_dropout(self.dropout)


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``. The MLP is four times as wide inside.

    Weights are normal with standard deviation 0.02, divided by √(2 · layers) at the end of a
    residual branch, as in GPT-2.

    Args:
        causal: Whether a position attends only to itself and to earlier positions.
        eps: The ε of the layer normalisations.

    Reference:
        Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, section 2.3.

    Example:
        >>> block = Block(TransformerConfig(width=8, heads=2), causal=True)
        >>> block(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, config: TransformerConfig, *, causal: bool, eps: float = 1e-5) -> None:
        super().__init__()
        width, branch_std = config.width, STD / math.sqrt(2 * config.layers)
        self.attention = nn.Sequential(
            nn.LayerNorm(width, eps=eps),
            Attention(config, causal=causal),
            NormalLinear(width, width, std=branch_std),
            *dropout(config.dropout),
        )
        self.mlp = nn.Sequential(
            nn.LayerNorm(width, eps=eps),
            NormalLinear(width, 4 * width, std=STD),
            nn.GELU(),
            NormalLinear(4 * width, width, std=branch_std),
            *dropout(config.dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, width) for ``x`` (B, T, width)."""
        x = x + self.attention(x)
        return x + self.mlp(x)


class Attention(nn.Module):
    """``softmax(Q Kᵀ / √d) V`` for each head, with d = width / heads; the heads are concatenated.

    Written out, because torch's fused kernels have neither double backward nor forward mode.

    Args:
        causal: Whether a position attends only to itself and to earlier positions.

    Reference:
        Vaswani et al., "Attention Is All You Need", 2017, section 3.2.

    Example:
        >>> Attention(TransformerConfig(width=8, heads=2), causal=False)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, config: TransformerConfig, *, causal: bool) -> None:
        super().__init__()
        self._heads, self._causal = config.heads, causal
        self.qkv = NormalLinear(config.width, 3 * config.width, std=STD)
        self.dropout = nn.Sequential(*dropout(config.dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, width) for ``x`` (B, T, width)."""
        query, key, value = (
            part.unflatten(-1, (self._heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        scores = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)
        if self._causal:
            at = torch.arange(x.shape[1], device=x.device)
            scores = scores.masked_fill(at > at[:, None], -torch.inf)
        seen = self.dropout(scores.softmax(-1)) @ value
        return seen.transpose(1, 2).flatten(2)
