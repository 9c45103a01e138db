"""Operators with derivatives of their own, right ones and broken ones: sin, mostly."""

import torch
from torch.autograd.function import once_differentiable


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


class WrongForwardMode(SineForward):
    """With the forward mode of another function."""

    @staticmethod
    def jvp(ctx, moved):
        (x,) = ctx.saved_tensors
        return 0.9 * moved * x.cos()


class LostCurvature(Sine):
    """Its backward is right, and forgets that it depends on x."""

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return slope * x.detach().cos()


class _SlopeAlone(torch.autograd.Function):
    """slope · cos(x), as if it depended on the slope alone."""

    @staticmethod
    def forward(slope, x):
        return slope * x.cos()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx, given):
        (x,) = ctx.saved_tensors
        return given * x.cos(), None

    @staticmethod
    def jvp(ctx, moved, _):
        (x,) = ctx.saved_tensors
        return moved * x.cos()


class LostInBoth(SineForward):
    """Its first derivatives are right; forward mode and reverse mode lose the same curvature."""

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return _SlopeAlone.apply(slope, x)


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


@torch.library.custom_op("metaloss_tests::swish", mutates_args=())
def swish(x: torch.Tensor) -> torch.Tensor:
    """Like an operator of a library: reverse mode alone, and nothing is said of forward mode."""
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
