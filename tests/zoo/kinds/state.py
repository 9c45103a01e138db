"""State, hooks, writes in place, types of numbers."""

import warnings

import torch
from torch import nn
from torch.nn import functional as F

from ..kind import Expected, Group, Net, Truth, head, real, set_up

GROUP = Group("State, hooks, writes in place, types of numbers")
add = GROUP.add


def net(run, **parts):
    """A body, a head and more."""
    return Net(run, body=nn.Linear(4, 6), head=head(6), **parts)


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

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(torch.jit.script(nn.Linear(4, 6)), nn.Tanh(), head(6))


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
    expected=Expected.refused,
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
