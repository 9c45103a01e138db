"""Activations, each between two layers."""

import copy

from torch import nn
from torch.nn import functional as F

from ..kind import Expected, Group, Net, Truth, between, head, real

GROUP = Group("Activations")
add = GROUP.add

for layer in (
    *(nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.LeakyReLU(), nn.PReLU(6), nn.ELU()),
    *(nn.CELU(), nn.SELU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.SiLU(inplace=True)),
    *(nn.Mish(), nn.Softplus(), nn.Softsign(), nn.Tanh(), nn.Sigmoid(), nn.LogSigmoid()),
    *(nn.Hardtanh(), nn.Hardswish(), nn.Hardshrink(), nn.Softshrink(), nn.Tanhshrink()),
    *(nn.Threshold(0.1, 0.0), nn.Softmax(1), nn.Softmin(1), nn.LogSoftmax(1)),
):
    add(
        repr(layer),
        lambda layer=layer: between(copy.deepcopy(layer)),
        real(4),
        heavy=len(GROUP.kinds) % 3 > 0,  # in the short form every third of them
    )
add(
    "Hardsigmoid()",
    lambda: between(nn.Hardsigmoid()),
    real(4),
    truth=Truth.differences,
)
add("GLU", lambda: between(nn.GLU(), outside=3), real(4))
add(
    "SwiGLU",
    lambda: Net(
        lambda m, x: m.head(F.silu(m.gate(x)) * m.up(x)),
        gate=nn.Linear(4, 6),
        up=nn.Linear(4, 6),
        head=head(6),
    ),
    real(4),
)
add("RReLU", lambda: between(nn.RReLU()), real(4), truth=Truth.own, traces=None)
add(
    "maxout",
    lambda: Net(
        lambda m, x: m.head(m.body(x).view(-1, 4, 3).amax(-1)), body=nn.Linear(4, 12), head=head(4)
    ),
    real(4),
)
add(
    "softmax of two dimensions",
    lambda: Net(
        lambda m, x: m.head(nn.Softmax2d()(m.body(x)).flatten(1)),
        body=nn.Conv2d(1, 3, 2),
        head=head(12),
    ),
    real(1, 3, 3),
)
add(
    "gumbel_softmax",
    lambda: Net(
        lambda m, x: m.head(F.gumbel_softmax(m.body(x))), body=nn.Linear(4, 6), head=head(6)
    ),
    real(4),
    truth=Truth.own,
    traces=None,
)
add(
    "gumbel_softmax, hard",
    lambda: Net(
        lambda m, x: m.head(F.gumbel_softmax(m.body(x), hard=True)),
        body=nn.Linear(4, 6),
        head=head(6),
    ),
    real(4),
    truth=Truth.agreed,
    expected=Expected.backward,
    traces=None,
)
