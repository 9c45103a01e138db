"""Models whose weights are in half precision."""

import torch
from torch import nn

from ..kind import Group, Net, Truth, between, head, pooled, real

GROUP = Group("Weights in half precision")
# Of an unroll in bfloat16, torch's own is as far from one in double precision.
TOLERANCE = 0.05


def add(name, make, *shape, dtype=torch.bfloat16, heavy=True):
    """Write a kind down, in half precision."""
    drawn = real(*shape)
    GROUP.add(
        f"{name}, {str(dtype).removeprefix('torch.')}",
        lambda: make().to(dtype),
        lambda generator: drawn(generator).to(dtype),
        truth=Truth.graph,
        smooth=False,
        double=False,
        tolerance=TOLERANCE,
        heavy=heavy,
        traces=None,
    )


def _attending():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return Net(
        lambda m, x: m.head(m.layer(m.body(x)).mean(1)),
        body=nn.Linear(4, 8),
        layer=layer,
        head=head(8),
    )


def _recurrent():
    return Net(
        lambda m, x: m.head(m.layer(x)[0][:, -1]),
        layer=nn.GRU(4, 6, batch_first=True),
        head=head(6),
    )


def _convolving():
    return pooled(nn.Conv2d(2, 4, 2), nn.GroupNorm(2, 4), nn.Tanh(), width=4)


add("layers", lambda: between(nn.Tanh()), 4, heavy=False)
add("layers", lambda: between(nn.Tanh()), 4, dtype=torch.float16)
add("BatchNorm1d", lambda: between(nn.BatchNorm1d(6), nn.Tanh()), 4)
add("LayerNorm and GELU", lambda: between(nn.LayerNorm(6), nn.GELU()), 4)
add("a convolution and GroupNorm", _convolving, 2, 4, 4)
add("a Transformer layer", _attending, 5, 4)
add("GRU", _recurrent, 5, 4)
