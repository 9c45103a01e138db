"""Derivatives of one's own, and parts that autograd is not to see."""

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint, checkpoint_sequential
from torchvision.ops import DeformConv2d, roi_align

from .kinds import Expected, Group, Net, Truth, head, real

GROUP = Group("Derivatives of one's own, and hidden ones")


def add(name, make, inputs, **options):
    GROUP.add(name, make, inputs, **options)


class Sine(torch.autograd.Function):
    """Without forward mode."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return slope * x.cos()


class SineSetup(torch.autograd.Function):
    """In the newer form, without forward mode."""

    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return slope * x.cos()


class SineForward(SineSetup):
    """With forward mode."""

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx, moved):
        (x,) = ctx.saved_tensors
        return moved * x.cos()


class SineOnce(Sine):
    """Not twice differentiable."""

    @staticmethod
    @once_differentiable
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return slope * x.cos()


class SineSilentlyOnce(Sine):
    """Its backward leaves the graph without saying so."""

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return torch.from_numpy(slope.detach().numpy() * x.detach().cos().numpy())


class Reversed(torch.autograd.Function):
    """Gradient reversal."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, slope):
        return -slope


class Rounded(torch.autograd.Function):
    """Rounds; the gradient passes straight through."""

    @staticmethod
    def forward(ctx, x):
        return (2 * x).round() / 2

    @staticmethod
    def backward(ctx, slope):
        return slope


class Clipped(torch.autograd.Function):
    """Sign; the gradient passes where |x| < 1 (binary networks)."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return slope * (x.abs() < 1).to(slope.dtype)


@torch.library.custom_op("metaloss_zoo::swish", mutates_args=())
def swish(x: torch.Tensor) -> torch.Tensor:
    return x * x.sigmoid()


def _swish_back(ctx, slope):
    (x,) = ctx.saved_tensors
    s = x.sigmoid()
    return slope * (s + x * s * (1 - s))


swish.register_autograd(
    _swish_back, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0])
)


@swish.register_fake
def _(x):
    return torch.empty_like(x)


def within(function):
    """A function between two layers."""
    return Net(lambda m, x: m.head(function(m.body(x))), body=nn.Linear(4, 6), head=head(6))


add(
    "autograd.Function without forward mode",
    lambda: within(Sine.apply),
    real(4),
    traces=None,
    expected=Expected.reverse,
)
add(
    "autograd.Function with setup_context",
    lambda: within(SineSetup.apply),
    real(4),
    traces=None,
    expected=Expected.reverse,
)
add("autograd.Function with jvp", lambda: within(SineForward.apply), real(4), traces=None)
add(
    "autograd.Function, once_differentiable",
    lambda: within(SineOnce.apply),
    real(4),
    truth=Truth.differences,
    traces=None,
    expected=Expected.differences,
)
add(
    "autograd.Function, backward by numpy",
    lambda: within(SineSilentlyOnce.apply),
    real(4),
    truth=Truth.differences,
    traces=None,
    expected=Expected.differences,
)
add(
    "gradient reversal",
    lambda: within(Reversed.apply),
    real(4),
    truth=Truth.graph,
    traces=None,
    expected=Expected.backward,
)
add(
    "straight-through estimator, autograd.Function",
    lambda: within(Rounded.apply),
    real(4),
    truth=Truth.graph,
    traces=None,
    expected=Expected.backward,
)
add(
    "binary activations, autograd.Function",
    lambda: within(Clipped.apply),
    real(4),
    truth=Truth.graph,
    traces=None,
    expected=Expected.backward,
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
    "torch.library.custom_op",
    lambda: within(swish),
    real(4),
    traces=None,
    expected=Expected.reverse,
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


def _checkpointed(reentrant, norm=False, drop=0.0):
    body = nn.Sequential(
        nn.Linear(6, 6),
        nn.BatchNorm1d(6) if norm else nn.Identity(),
        nn.Tanh(),
        nn.Dropout(drop),
        nn.Linear(6, 6),
    )
    return Net(
        lambda m, x: m.head(torch.tanh(checkpoint(m.body, m.first(x), use_reentrant=reentrant))),
        first=nn.Linear(4, 6),
        body=body,
        head=head(6),
    )


add("checkpoint", lambda: _checkpointed(False), real(4), traces=None)
add("checkpoint around BatchNorm", lambda: _checkpointed(False, norm=True), real(4), traces=None)
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
    truth=Truth.differences,
    traces=None,
    expected=Expected.reverse,
)
add(
    "checkpoint_sequential",
    lambda: Net(
        lambda m, x: m.head(checkpoint_sequential(m.body, 2, m.first(x), use_reentrant=False)),
        first=nn.Linear(4, 6),
        body=nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh()),
        head=head(6),
    ),
    real(4),
    traces=None,
)


def _regions(m, x):
    boxes = torch.tensor([[i, 0.3, 0.2, 3.1, 2.9] for i in range(len(x))], dtype=x.dtype)
    return m.head(torch.tanh(roi_align(m.conv(x), boxes, 2)).flatten(1))


add(
    "torchvision's roi_align",
    lambda: Net(_regions, conv=nn.Conv2d(2, 3, 2), head=head(12)),
    real(2, 5, 5),
    truth=Truth.differences,
    traces=None,
    expected=Expected.differences,
)


def _deformed(m, x):
    return m.head(torch.tanh(m.conv(x, m.offset(x))).mean((2, 3)))


add(
    "torchvision's DeformConv2d",
    lambda: Net(_deformed, offset=nn.Conv2d(2, 8, 2), conv=DeformConv2d(2, 4, 2), head=head(4)),
    real(2, 4, 4),
    truth=Truth.differences,
    traces=None,
    expected=Expected.differences,
)
add(
    "torch.cdist",
    lambda: Net(
        lambda m, x: m.head(torch.cdist(m.body(x), m.centres)),
        body=nn.Linear(4, 3),
        centres=nn.Parameter(torch.randn(5, 3)),
        head=head(5),
    ),
    real(4),
    expected=Expected.reverse,
)
