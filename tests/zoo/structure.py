"""How models are put together: shared, frozen, stateful, hooked, branched."""

import torch
from torch import nn
from torch.nn import functional as F

from .kinds import Expected, Group, Net, Truth, between, head, pooled, real, set_up

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
    "outputs read by item()",
    lambda: net(lambda m, x: m.head(torch.tanh(m.body(x) / m.body(x).detach().norm().item()))),
    real(4),
    truth=Truth.graph,
    traces=None,
    expected=Expected.backward,
)
add(
    "a forward hook",
    lambda: set_up(
        net(lambda m, x: m.head(torch.tanh(m.body(x)))),
        lambda m: m.body.register_forward_hook(lambda _, __, out: 2 * out),
    ),
    real(4),
)
add(
    "a forward pre-hook",
    lambda: set_up(
        net(lambda m, x: m.head(torch.tanh(m.body(x)))),
        lambda m: m.body.register_forward_pre_hook(lambda _, given: (given[0] * 0.5,)),
    ),
    real(4),
)
add(
    "a hook on a parameter's gradient",
    lambda: set_up(
        net(lambda m, x: m.head(torch.tanh(m.body(x)))),
        lambda m: m.body.weight.register_hook(lambda slope: 0.5 * slope),
    ),
    real(4),
    truth=Truth.differences,
    traces=None,
    expected=Expected.refused,
)
add(
    "a full backward hook",
    lambda: set_up(
        net(lambda m, x: m.head(torch.tanh(m.body(x)))),
        lambda m: m.body.register_full_backward_hook(lambda _, given, got: None),
    ),
    real(4),
    traces=None,
)
add("a forward hook that keeps features", lambda: _features(), real(4), traces=None)
add(
    "inputs changed in place",
    lambda: net(lambda m, x: m.head(torch.tanh(m.body(x.mul_(0.5).add_(0.1))))),
    real(4),
    traces=None,
)
add(
    "activations changed in place",
    lambda: net(lambda m, x: m.head(m.body(x).mul_(0.5).add_(0.1).tanh_())),
    real(4),
)
add("a slice written in place", lambda: net(_slice), real(4))
add(
    "complex parameters (Fourier layer)",
    lambda: Net(
        _fourier, weight=nn.Parameter(torch.randn(2, 3, 3, dtype=torch.complex128)), head=head(3)
    ),
    real(2, 6),
    traces=None,
    expected=Expected.exact,
)
add(
    "real parameters seen as complex",
    lambda: Net(_viewed, weight=nn.Parameter(torch.randn(2, 3, 3, 2)), head=head(3)),
    real(2, 6),
    traces=None,
)
add(
    "half of the parameters in single precision",
    lambda: Net(
        lambda m, x: m.head(torch.tanh(m.body(x.float())).double()),
        body=nn.Linear(4, 6),
        head=head(6).double(),
    ),
    real(4),
    double=False,
    tolerance=1e-5,
    truth=Truth.graph,
    smooth=False,
)
add(
    "autocast inside of the forward pass",
    lambda: Net(_autocast, body=nn.Linear(4, 6), head=head(6)),
    real(4),
    truth=Truth.graph,
    traces=None,
)
add(
    "a buffer as a constant",
    lambda: set_up(
        net(lambda m, x: m.head(torch.tanh(m.body(x - m.mean)))),
        lambda m: m.register_buffer("mean", torch.randn(4)),
    ),
    real(4),
)
add(
    "a running mean as a buffer, reassigned",
    lambda: set_up(net(_running), lambda m: m.register_buffer("mean", torch.zeros(6))),
    real(4),
    truth=Truth.graph,
)
add(
    "a running mean as a plain attribute",
    lambda: set_up(
        net(_running), lambda m: setattr(m, "mean", torch.zeros(6, dtype=torch.float64))
    ),
    real(4),
    truth=Truth.graph,
    traces=None,
)
add(
    "a counter as a plain attribute",
    lambda: set_up(net(_counted), lambda m: setattr(m, "count", 0)),
    real(4),
    traces=None,
    expected=Expected.refused,
)
add(
    "a buffer that changes its shape",
    lambda: set_up(net(_growing), lambda m: m.register_buffer("seen", torch.zeros(1, 6))),
    real(4),
    truth=Truth.graph,
    traces=None,
    expected=Expected.refused,
)
add(
    "a recurrent state as a plain attribute",
    lambda: set_up(
        Net(_carried, cell=nn.GRUCell(4, 6), head=head(6)), lambda m: setattr(m, "state", None)
    ),
    real(4),
    truth=Truth.graph,
    traces=None,
)
add(
    "a quantized codebook (VQ), moving averages",
    lambda: set_up(net(_codebook), lambda m: m.register_buffer("codes", torch.randn(5, 6))),
    real(4),
    truth=Truth.graph,
    traces=None,
    expected=Expected.backward,
)
add(
    "a key queue (MoCo)",
    lambda: set_up(net(_queue), lambda m: m.register_buffer("queue", torch.randn(8, 6))),
    real(4),
    truth=Truth.graph,
    traces=None,
    expected=Expected.backward,
)
add(
    "deep supervision: outputs of two heads added",
    lambda: net(
        lambda m, x: m.head(torch.tanh(m.body(x))) + 0.3 * m.early(x), early=nn.Linear(4, 3)
    ),
    real(4),
)
add(
    "a scripted layer",
    lambda: _scripted(),
    real(4),
    truth=Truth.differences,
    traces=None,
    expected=Expected.refused,
)
add(
    "a lazy layer",
    lambda: nn.Sequential(nn.LazyLinear(6), nn.Tanh(), head(6)),
    real(4),
    expected=Expected.refused,
    traces=None,
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


def _features():
    kept = {}
    model = net(lambda m, x: m.head(torch.tanh(m.body(x))) + 0.1 * kept["body"][:, :3])
    model.body.register_forward_hook(lambda _, __, out: kept.update(body=out))
    return model


def _slice(m, x):
    h = m.body(x).clone()
    h[:, :2] = torch.tanh(h[:, 2:4])
    return m.head(h)


def _fourier(m, x):
    modes = torch.fft.rfft(x)[..., :3]
    mixed = torch.einsum("bim,iom->bom", modes, m.weight)
    return m.head(torch.tanh(torch.fft.irfft(mixed, n=6)).mean(-1))


def _viewed(m, x):
    modes = torch.fft.rfft(x)[..., :3]
    mixed = torch.einsum("bim,iom->bom", modes, torch.view_as_complex(m.weight))
    return m.head(torch.tanh(torch.fft.irfft(mixed, n=6)).mean(-1))


def _autocast(m, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = m.body(x)
    return m.head(torch.tanh(h.to(x.dtype)))


def _running(m, x):
    h, before = m.body(x), m.mean
    if m.training:
        m.mean = 0.5 * m.mean + 0.5 * h.detach().mean(0)
    return m.head(torch.tanh(h - before))


def _counted(m, x):
    m.count += 1
    return m.head(torch.tanh(m.body(x) / m.count))


def _growing(m, x):
    h = m.body(x)
    before = m.seen.mean(0)
    m.seen = torch.cat([m.seen, h.detach().mean(0, keepdim=True)])
    return m.head(torch.tanh(h - before))


def _carried(m, x):
    h = m.cell(x, m.state)
    m.state = h.detach()
    return m.head(h)


def _codebook(m, x):
    h = m.body(x)
    nearest = torch.cdist(h.detach(), m.codes).argmin(1)
    code = m.codes[nearest]
    if m.training:
        m.codes = m.codes.index_add(0, nearest, 0.1 * (h.detach() - code))
    return m.head(torch.tanh(h + (code - h).detach()))


def _queue(m, x):
    h = F.normalize(m.body(x))
    scores = (h @ m.queue.clone().T).softmax(1)
    m.queue.copy_(torch.cat([h.detach(), m.queue[: -len(h)]]))
    return m.head(scores @ m.queue.clone() + h)


def _scripted():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(torch.jit.script(nn.Linear(4, 6)), nn.Tanh(), head(6))
