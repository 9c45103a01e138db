"""What a model remembers between passes: caches, averages, teachers, counters."""

import functools

import torch
from torch import nn
from torch.nn import functional as F

from ..kind import Expected, Group, Net, Truth, head, real, set_up

GROUP = Group("What a model remembers between passes")
add = GROUP.add


def net(run, *changes, **parts):
    """A body, a head and more."""
    return set_up(Net(run, body=nn.Linear(4, 6), head=head(6), **parts), *changes)


def _cached(m, x):
    if m.mask is None:
        m.mask = torch.linspace(0.5, 1.5, 6, dtype=x.dtype)
    return m.head(torch.tanh(m.body(x)) * m.mask)


def _cached_by_size(m, x):
    if len(x) not in m.masks:
        m.masks[len(x)] = torch.linspace(0.5, 1.5, len(x), dtype=x.dtype)[:, None]
    return m.head(torch.tanh(m.body(x)) * m.masks[len(x)])


@functools.lru_cache
def _table(size):
    return torch.linspace(0.5, 1.5, size, dtype=torch.float64)


def _logged(m, x):
    h = torch.tanh(m.body(x))
    m.seen.append(float(h.detach().mean()))
    return m.head(h)


def _kept(m, x):
    m.last = torch.tanh(m.body(x))
    return m.head(m.last)


def _warmed_up(m, x):
    m.passes += 1
    share = (m.passes / 4).clamp(max=1.0)
    return m.head(torch.tanh(m.body(x)) * share)


def _smoothed(m, x):
    h = m.body(x)
    with torch.no_grad():
        m.mean.lerp_(h.mean(0), 0.5)
    return m.head(torch.tanh(h)) + 0 * m.mean.sum()


def _taught(m, x):
    with torch.no_grad():
        for old, new in zip(m.teacher.parameters(), m.body.parameters(), strict=True):
            old.lerp_(new, 0.5)
        hint = m.teacher(x)
    return m.head(torch.tanh(m.body(x)) + 0.1 * hint)


def _clipped(m, x):
    with torch.no_grad():
        m.body.weight.clamp_(-0.2, 0.2)
    return m.head(torch.tanh(m.body(x)))


def _masked_weight(m, x):
    return m.head(torch.tanh(F.linear(x, m.body.weight * m.mask, m.body.bias)))


def _grown(m, x):
    if m.extra is None:
        m.extra = nn.Linear(6, 6, dtype=x.dtype)
        with torch.no_grad():
            m.extra.weight.fill_(0.1)
            m.extra.bias.fill_(0.1)
    return m.head(torch.tanh(m.extra(m.body(x))))


def _toggled(m, x):
    m.body.weight.requires_grad_(True)
    return m.head(torch.tanh(m.body(x)))


def _turned_off(m, x):
    m.eval()
    h = torch.tanh(m.norm(m.body(x)))
    m.train()
    return m.head(h)


def _buffer(name, value):
    return lambda m: m.register_buffer(name, value)


add(
    "a mask that the first pass makes",
    lambda: net(_cached, lambda m: setattr(m, "mask", None)),
    real(4),
    traces=None,
)
add(
    "masks by size, in a dictionary",
    lambda: net(_cached_by_size, lambda m: setattr(m, "masks", {})),
    real(4),
    traces=None,
)
add(
    "a table in functools.lru_cache",
    lambda: net(lambda m, x: m.head(torch.tanh(m.body(x)) * _table(6))),
    real(4),
    traces=None,
)
add(
    "a list that grows: what was seen",
    lambda: net(_logged, lambda m: setattr(m, "seen", [])),
    real(4),
    expected=Expected.refused,
    traces=None,
)
add("activations kept in an attribute", lambda: net(_kept), real(4), traces=None)
add(
    "a counter in a buffer that sets the scale",
    lambda: net(_warmed_up, _buffer("passes", torch.zeros(()))),
    real(4),
    traces=None,
)
add(
    "an average in a buffer, written in place",
    lambda: net(_smoothed, _buffer("mean", torch.zeros(6))),
    real(4),
    traces=None,
)
add(
    "a buffer that is not saved",
    lambda: set_up(
        net(_masked_weight),
        lambda m: m.register_buffer("mask", (torch.rand(6, 4) > 0.4).double(), persistent=False),
    ),
    real(4),
)
add(
    "a momentum teacher: frozen weights that the pass moves (BYOL)",
    lambda: net(_taught, lambda m: m.teacher.requires_grad_(False), teacher=nn.Linear(4, 6)),
    real(4),
    truth=Truth.graph,
    expected=Expected.backward,
    traces=None,
)
add(
    "weights clipped in place by the pass",
    lambda: net(_clipped),
    real(4),
    expected=Expected.refused,
    traces=None,
)
add(
    "a layer that the first pass makes",
    lambda: net(_grown, lambda m: setattr(m, "extra", None)),
    real(4),
    expected=Expected.refused,
    traces=None,
)
add("requires_grad_ set by the pass", lambda: net(_toggled), real(4), traces=None)
add(
    "train and eval set by the pass",
    lambda: net(_turned_off, norm=nn.BatchNorm1d(6)),
    real(4),
    traces=None,
)
