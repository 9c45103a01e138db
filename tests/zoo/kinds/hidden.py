"""Parts that autograd is not to see, and passes within the pass."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from ..kind import Expected, Group, Net, Truth, head, real

GROUP = Group("Hidden parts, checkpoints, derivatives inside of the pass")
add = GROUP.add


def within(function):
    """A function between two layers."""
    return Net(lambda m, x: m.head(function(m.body(x))), body=nn.Linear(4, 6), head=head(6))


@torch.no_grad()
def _round(h):
    return h.round()


def _rounded_no_grad(h):
    return h + (_round(h) - h.detach())


def _no_grad_part(m, x):
    with torch.no_grad():
        gate = torch.sigmoid(m.gate(x))
    return m.head(torch.tanh(m.body(x)) * gate)


def _first_without(m, x):
    with torch.set_grad_enabled(False):
        h = torch.tanh(m.body(x))
    return m.head(torch.tanh(m.mid(h)))


def _scaled_no_grad(h):
    with torch.no_grad():
        scale = h.abs().amax()
    return torch.tanh(h / scale)


def _hooked(h):
    h = torch.tanh(h)
    if h.requires_grad:
        h.register_hook(lambda slope: 0.5 * slope)
    return h


def _inner_grad(h):
    with torch.enable_grad():
        at = h if h.requires_grad else h.requires_grad_()
        (slope,) = torch.autograd.grad(torch.tanh(at).pow(2).sum(), at, create_graph=True)
    return slope


def _checkpointed(reentrant, norm=False, drop=0.0, plain=False):
    body = nn.Sequential(
        nn.Linear(6, 6),
        nn.BatchNorm1d(6) if norm else nn.Identity(),
        nn.Tanh(),
        nn.Dropout(drop),
        nn.Linear(6, 6),
    )
    called = (lambda part, x: part(x)) if plain else partial(checkpoint, use_reentrant=reentrant)
    return Net(
        lambda m, x: m.head(torch.tanh(called(m.body, m.first(x)))),
        first=nn.Linear(4, 6),
        body=body,
        head=head(6),
    )


add(
    "straight-through estimator, detach",
    lambda: within(lambda h: h + (h.round() - h).detach()),
    real(4),
    truth=Truth.graph,
    expected=Expected.backward,
)
add(
    "straight-through estimator, no_grad",
    lambda: within(_rounded_no_grad),
    real(4),
    truth=Truth.graph,
    expected=Expected.backward,
)
add(
    "detached statistics",
    lambda: within(lambda h: torch.tanh(h / h.detach().norm(dim=1, keepdim=True))),
    real(4),
    truth=Truth.graph,
    expected=Expected.backward,
)
add(
    "a part under no_grad",
    lambda: Net(_no_grad_part, body=nn.Linear(4, 6), gate=nn.Linear(4, 6), head=head(6)),
    real(4),
    truth=Truth.graph,
)
add(
    "set_grad_enabled(False) around the first layers",
    lambda: Net(_first_without, body=nn.Linear(4, 6), mid=nn.Linear(6, 6), head=head(6)),
    real(4),
    truth=Truth.graph,
)
add(
    "statistics under no_grad",
    lambda: within(_scaled_no_grad),
    real(4),
    truth=Truth.graph,
    expected=Expected.backward,
)
add(
    "the data of a tensor",
    lambda: within(lambda h: torch.tanh(h - h.data.mean(0))),
    real(4),
    truth=Truth.graph,
    expected=Expected.backward,
)
add(
    "a gradient hook on an activation",
    lambda: within(_hooked),
    real(4),
    truth=Truth.graph,
    traces=None,
    expected=Expected.backward,
)
add(
    "autograd.grad inside of the forward pass",
    lambda: within(_inner_grad),
    real(4),
    traces=None,
    expected=Expected.reverse,
)
add(
    "torch.func.grad inside of the forward pass",
    lambda: within(lambda h: torch.func.grad(lambda t: torch.tanh(t).pow(2).sum())(h)),
    real(4),
    traces=None,
)
add(
    "torch.func.vmap inside of the forward pass",
    lambda: within(torch.func.vmap(lambda row: torch.tanh(row) * row.sum())),
    real(4),
    traces=None,
)
add(
    "checkpoint",
    lambda: _checkpointed(False),
    real(4),
    plain=lambda: _checkpointed(False, plain=True),
    traces=None,
)
add(
    "checkpoint around BatchNorm",
    lambda: _checkpointed(False, norm=True),
    real(4),
    plain=lambda: _checkpointed(False, norm=True, plain=True),
    traces=None,
)
add(
    "checkpoint around Dropout",
    lambda: _checkpointed(False, drop=0.4),
    real(4),
    truth=Truth.own,
    traces=None,
)
add(
    "checkpoint, reentrant",
    lambda: _checkpointed(True),
    real(4),
    plain=lambda: _checkpointed(True, plain=True),
    traces=None,
    expected=Expected.reverse,
)


def _sequential(plain):
    body = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh())
    called = (lambda body, x: body(x)) if plain else _in_two
    return Net(
        lambda m, x: m.head(called(m.body, m.first(x))),
        first=nn.Linear(4, 6),
        body=body,
        head=head(6),
    )


def _in_two(body, x):
    return checkpoint_sequential(body, 2, x, use_reentrant=False)


add(
    "checkpoint_sequential",
    lambda: _sequential(False),
    real(4),
    plain=lambda: _sequential(True),
    traces=None,
)


class _Again(torch.autograd.Function):
    """Activation checkpointing as libraries write it themselves."""

    @staticmethod
    def forward(ctx, function, x):
        ctx.function = function
        ctx.save_for_backward(x)
        with torch.no_grad():
            return function(x)

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            torch.autograd.backward(ctx.function(x), slope)
        return None, x.grad


class _AgainWith(torch.autograd.Function):
    """The same, with the weights as arguments."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight, bias)
        return torch.tanh(F.linear(x, weight, bias))

    @staticmethod
    def backward(ctx, slope):
        given = [value.detach().requires_grad_() for value in ctx.saved_tensors]
        with torch.enable_grad():
            return torch.autograd.grad(torch.tanh(F.linear(*given)), given, slope)


def _body(run):
    return Net(run, first=nn.Linear(4, 6), body=nn.Linear(6, 6), head=head(6))


add(
    "checkpointing of one's own",
    lambda: _body(lambda m, x: m.head(torch.tanh(_Again.apply(m.body, m.first(x))))),
    real(4),
    traces=None,
    expected=Expected.refused,
)
add(
    "checkpointing of one's own, weights as arguments",
    lambda: _body(
        lambda m, x: m.head(_AgainWith.apply(m.first(x), m.body.weight, m.body.bias)),
    ),
    real(4),
    traces=None,
    truth=Truth.differences,
    expected=Expected.differences,
)
