"""A language model with the architecture of GPT-2."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaloss.models.layers import NormalTable
from metaloss.models.options import check_shapes
from metaloss.models.transformer import Block, TransformerConfig


class GPT(nn.Module):
    """Embeddings of tokens and positions, then causal blocks; the embeddings are the last layer.

    Takes int64 tokens (B, T) and returns raw outputs (B, C, T): at each position, one for every
    token that may follow. C is the size of the vocabulary, and all tokens must be below it.
    Architecture and initialisation are those of GPT-2, except that the GELU is exact and not
    approximated by tanh. With the sizes of GPT-2, the model has its 124,439,808 parameters.

    Args:
        input_shape: (T,), the largest length; inputs may be shorter.
        outputs: C, the size of the vocabulary.

    Raises:
        MetalossError: If a shape or an option is out of range.

    Reference:
        Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.

    Example:
        >>> config = TransformerConfig(layers=2, width=16, heads=2)
        >>> model = GPT(config, input_shape=(8,), outputs=65)
        >>> model(torch.zeros(4, 8, dtype=torch.int64)).shape
        torch.Size([4, 65, 8])
    """

    Config = TransformerConfig
    # For the contract checks: rows are int64 tokens below the number of outputs.
    takes_tokens = True

    def __init__(
        self, config: TransformerConfig, *, input_shape: tuple[int, ...], outputs: int
    ) -> None:
        super().__init__()
        check_shapes("gpt", input_shape, outputs, (1,))
        self.tokens = NormalTable(outputs, config.width)
        self.positions = NormalTable(input_shape[0], config.width)
        self.dropout = nn.Dropout(config.dropout) if config.dropout > 0 else nn.Identity()
        self.blocks = nn.Sequential(*(Block(config, causal=True) for _ in range(config.layers)))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return raw outputs (B, C, T) for tokens (B, T)."""
        x = F.embedding(inputs, self.tokens.weight) + self.positions.weight[: inputs.shape[1]]
        x = self.norm(self.blocks(self.dropout(x)))
        return torch.matmul(x, self.tokens.weight.T).transpose(1, 2)
