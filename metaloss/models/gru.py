"""A gated recurrent unit over a sequence, written out in plain tensor operations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn

from metaloss.errors import MetalossError, check_whole
from metaloss.models.options import check_dropout, check_shapes
from metaloss.options import Options


@dataclass(frozen=True, kw_only=True)
class GRUConfig(Options, group="model"):
    """Options of the ``gru`` model."""

    hidden: int = field(default=64, metadata={"help": "width of the hidden state"})
    layers: int = field(default=1, metadata={"help": "number of recurrent layers"})
    chunk: int = field(
        default=1, metadata={"help": "values of a sequence (L,) that form one step; divides L"}
    )
    dropout: float = field(
        default=0.0, metadata={"help": "rate on the output of every recurrent layer, in [0, 1)"}
    )

    def __post_init__(self) -> None:
        check_whole("model.hidden", self.hidden, 1)
        check_whole("model.layers", self.layers, 1)
        check_whole("model.chunk", self.chunk, 1)
        check_dropout(self.dropout)


class GRU(nn.Module):
    """Recurrent layers over a sequence, then a linear layer on the last state.

    Args:
        input_shape: (L,): L / chunk steps of ``chunk`` features. (L, F): L steps of F features; a
            signal with channels first must be transposed. (channels, H, W): H steps from top to
            bottom, each with channels · W features.
        outputs: C, the number of outputs.

    Raises:
        MetalossError: If a shape or an option is out of range.

    Example:
        >>> model = GRU(GRUConfig(hidden=16), input_shape=(1, 8, 8), outputs=10)
        >>> model(torch.zeros(4, 1, 8, 8)).shape
        torch.Size([4, 10])
    """

    Config = GRUConfig

    def __init__(self, config: GRUConfig, *, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        check_shapes("gru", input_shape, outputs, (1, 2, 3))
        if len(input_shape) == 1 and input_shape[0] % config.chunk:
            raise MetalossError(
                f"model.chunk={config.chunk}: expected a divisor of the length {input_shape[0]}"
            )
        self.chunk = config.chunk
        features = {1: config.chunk, 2: input_shape[-1], 3: input_shape[0] * input_shape[-1]}
        widths = [features[len(input_shape)], *[config.hidden] * config.layers]
        self.layers = nn.ModuleList(GRULayer(before, after) for before, after in pairwise(widths))
        self.dropouts = nn.ModuleList(
            nn.Dropout(config.dropout) for _ in self.layers if config.dropout > 0
        )
        self.head = nn.Linear(config.hidden, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return raw outputs (B, C) for ``inputs`` (B, *input_shape)."""
        steps = _as_sequence(inputs, self.chunk)
        for index, layer in enumerate(self.layers):
            steps = layer(steps)
            if self.dropouts:
                steps = self.dropouts[index](steps)
        return self.head(steps[:, -1])


class GRULayer(nn.Module):
    r"""One recurrent layer, with parameters named, ordered and initialised as in ``nn.GRU``.

    ``r = σ(W_ir x + b_ir + W_hr h + b_hr)``, ``z = σ(W_iz x + b_iz + W_hz h + b_hz)``,
    ``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``, ``h' = n + z (h − n)``.

    ``nn.GRU`` itself cannot be used: it has no batching rule for ``vmap``, and on CUDA its cuDNN
    kernel has no double backward.

    Reference:
        Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, with the
        reset gate applied after the product, as in ``nn.GRU``.

    Example:
        >>> GRULayer(3, 5)(torch.zeros(2, 7, 3)).shape
        torch.Size([2, 7, 5])
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(3 * hidden, features))
        self.weight_hh = nn.Parameter(torch.empty(3 * hidden, hidden))
        self.bias_ih = nn.Parameter(torch.empty(3 * hidden))
        self.bias_hh = nn.Parameter(torch.empty(3 * hidden))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters uniformly from [−1/√hidden, 1/√hidden], as ``nn.GRU`` does."""
        bound = 1 / math.sqrt(self.weight_hh.shape[1])
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, steps: Tensor) -> Tensor:
        """Return the states (B, L, hidden) after each step, for ``steps`` (B, L, F)."""
        # This part of the gates does not depend on the state: one product serves all steps.
        from_input = nn.functional.linear(steps, self.weight_ih, self.bias_ih)
        state = from_input.new_zeros(steps.shape[0], self.weight_hh.shape[1])
        states = []
        for gates in from_input.unbind(dim=1):
            state = self._step(gates, state)
            states.append(state)
        return torch.stack(states, dim=1)

    def _step(self, from_input: Tensor, state: Tensor) -> Tensor:
        input_r, input_z, input_n = from_input.chunk(3, dim=-1)
        from_state = nn.functional.linear(state, self.weight_hh, self.bias_hh)
        state_r, state_z, state_n = from_state.chunk(3, dim=-1)
        reset = torch.sigmoid(input_r + state_r)
        keep = torch.sigmoid(input_z + state_z)
        new = torch.tanh(input_n + reset * state_n)
        return new + keep * (state - new)


def _as_sequence(inputs: Tensor, chunk: int) -> Tensor:
    """Return (B, L, F); see the model's ``input_shape``."""
    if inputs.ndim == 2:
        return inputs.unflatten(1, (-1, chunk))
    if inputs.ndim == 4:
        return inputs.transpose(1, 2).flatten(2)
    return inputs
