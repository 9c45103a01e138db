"""How models are put together: shared, frozen, branched."""

import torch
from torch import nn
from torch.nn import functional as F

from ..kind import Group, Net, between, head, pooled, real, set_up

GROUP = Group("How a model is put together")
add = GROUP.add


def net(run, **parts):
    """A body, a head and more."""
    return Net(run, body=nn.Linear(4, 6), head=head(6), **parts)


def _tied():
    model = nn.Sequential(
        nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), head(6)
    )
    model[4].weight = model[2].weight
    return model


def _two_names():
    block = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh())
    return net(lambda m, x: m.head(m.two(m.one(m.body(x)))), one=block, two=block)


def _residual(m, x):
    h = m.body(x)
    for layer in m.layers:
        h = h + torch.tanh(layer(h))
    return m.head(h)


def _best_two(m, x):
    weight, which = m.gate(x).topk(2, dim=1)
    every = torch.stack([torch.tanh(expert(x)) for expert in m.experts], 1)
    chosen = every.gather(1, which[..., None].expand(-1, -1, 6))
    return m.head((weight.softmax(1)[..., None] * chosen).sum(1))


def _sent(m, x):
    weight, which = m.gate(x).softmax(1).max(1)
    h = x.new_zeros(len(x), 6)
    for number, expert in enumerate(m.experts):
        rows = (which == number).nonzero()[:, 0]
        h = h.index_add(0, rows, torch.tanh(expert(x[rows])))
    return m.head(weight[:, None] * h)


add("Linear", lambda: nn.Linear(4, 3), real(4))
add("tied weights", _tied, real(4))
add(
    "an autoencoder's transposed weight",
    lambda: net(
        lambda m, x: m.head(
            torch.tanh(
                F.linear(
                    torch.tanh(F.linear(torch.tanh(m.body(x)), m.body.weight.T)), m.body.weight
                )
            )
        )
    ),
    real(4),
)
add(
    "a block used three times",
    lambda: net(
        lambda m, x: m.head(m.block(m.block(m.block(m.body(x))))),
        block=nn.Sequential(nn.Linear(6, 6), nn.Tanh()),
    ),
    real(4),
)
add("a block under two names", lambda: _two_names(), real(4))
add(
    "siamese",
    lambda: net(lambda m, x: m.head((torch.tanh(m.body(x)) - torch.tanh(m.body(x.flip(1)))).abs())),
    real(4),
)
add(
    "frozen layers",
    lambda: set_up(
        between(nn.Tanh(), nn.Linear(6, 6), nn.Tanh()), lambda m: m[0].requires_grad_(False)
    ),
    real(4),
)
add(
    "a frozen layer in the middle",
    lambda: set_up(
        between(nn.Tanh(), nn.Linear(6, 6), nn.Tanh()), lambda m: m[2].requires_grad_(False)
    ),
    real(4),
)
add(
    "frozen but for the biases",
    lambda: set_up(
        between(nn.Tanh(), nn.Linear(6, 6), nn.Tanh()),
        lambda m: [p.requires_grad_(p.dim() == 1) for p in m.parameters()],
    ),
    real(4),
)
add(
    "low-rank adapters on frozen weights (LoRA)",
    lambda: set_up(
        net(
            lambda m, x: m.head(torch.tanh(m.body(x) + m.b(m.a(x)))),
            a=nn.Linear(4, 2, bias=False),
            b=nn.Linear(2, 6, bias=False),
        ),
        lambda m: m.body.requires_grad_(False),
    ),
    real(4),
)
add(
    "parameters that the forward pass leaves out",
    lambda: net(lambda m, x: m.head(torch.tanh(m.body(x))), spare=nn.Linear(3, 3)),
    real(4),
)
add(
    "ParameterList and ParameterDict",
    lambda: Net(
        lambda m, x: torch.tanh(x @ m.rows[0] + m.named["shift"]) @ m.rows[1],
        rows=nn.ParameterList([torch.randn(4, 6), torch.randn(6, 3)]),
        named=nn.ParameterDict({"shift": torch.randn(6)}),
    ),
    real(4),
)
add(
    "a parameter without dimensions",
    lambda: net(
        lambda m, x: m.scale * m.head(torch.tanh(m.body(x))), scale=nn.Parameter(torch.tensor(1.5))
    ),
    real(4),
)
add(
    "Bilinear",
    lambda: Net(
        lambda m, x: m.head(torch.tanh(m.layer(x, x.flip(1)))),
        layer=nn.Bilinear(4, 4, 6),
        head=head(6),
    ),
    real(4),
)
add(
    "residual, ModuleList",
    lambda: net(_residual, layers=nn.ModuleList(nn.Linear(6, 6) for _ in range(3))),
    real(4),
)
add(
    "squeeze and excite",
    lambda: Net(
        lambda m, x: m.head(
            (m.conv(x) * torch.sigmoid(m.gate(m.conv(x).mean((2, 3))))[..., None, None])
            .relu()
            .mean((2, 3))
        ),
        conv=nn.Conv2d(2, 4, 2),
        gate=nn.Linear(4, 4),
        head=head(4),
    ),
    real(2, 4, 4),
)
add(
    "FiLM",
    lambda: net(
        lambda m, x: m.head(torch.tanh(m.scale(x) * m.body(x) + m.shift(x))),
        scale=nn.Linear(4, 6),
        shift=nn.Linear(4, 6),
    ),
    real(4),
)
add(
    "a hypernetwork",
    lambda: Net(
        lambda m, x: torch.einsum("bi,bio->bo", x, m.made(torch.tanh(x)).view(-1, 4, 3)),
        made=nn.Linear(4, 12),
    ),
    real(4),
)
add(
    "mixture of experts, soft",
    lambda: net(
        lambda m, x: m.head(
            torch.einsum(
                "be,beh->bh",
                m.gate(x).softmax(1),
                torch.stack([torch.tanh(e(x)) for e in m.experts], 1),
            )
        ),
        gate=nn.Linear(4, 3),
        experts=nn.ModuleList(nn.Linear(4, 6) for _ in range(3)),
    ),
    real(4),
)
add(
    "mixture of experts, the best two",
    lambda: net(
        _best_two, gate=nn.Linear(4, 3), experts=nn.ModuleList(nn.Linear(4, 6) for _ in range(3))
    ),
    real(4),
)
add(
    "mixture of experts, rows sent by index",
    lambda: net(
        _sent, gate=nn.Linear(4, 3), experts=nn.ModuleList(nn.Linear(4, 6) for _ in range(3))
    ),
    real(4),
    traces=None,
)
add(
    "a branch that depends on the inputs",
    lambda: net(
        lambda m, x: m.head(m.body(x).tanh() if float(x.detach().sum()) > 0 else m.other(x).tanh()),
        other=nn.Linear(4, 6),
    ),
    real(4),
    traces=None,
)
add(
    "a branch that depends on activations",
    lambda: net(
        lambda m, x: m.head(h.tanh() if bool((h := m.body(x)).mean() > 0) else h.sigmoid())
    ),
    real(4),
    traces=None,
)
add(
    "deep supervision: outputs of two heads added",
    lambda: net(
        lambda m, x: m.head(torch.tanh(m.body(x))) + 0.3 * m.early(x), early=nn.Linear(4, 3)
    ),
    real(4),
)
add(
    "convolution and one-pixel maps",
    lambda: pooled(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        width=4,
    ),
    real(2, 3, 3),
)
