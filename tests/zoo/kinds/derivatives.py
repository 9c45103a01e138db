"""Derivatives of one's own: autograd functions, custom operators, operators of libraries."""

import torch
from torch import nn
from torchvision.ops import DeformConv2d, roi_align

from ...operators import (
    Clipped,
    LostCurvature,
    LostInBoth,
    Reversed,
    Rounded,
    Sine,
    SineForward,
    SineOnce,
    SineSetup,
    SineSilentlyOnce,
    WrongForwardMode,
    swish,
)
from ..kind import Expected, Group, Net, Truth, head, real

GROUP = Group("Derivatives of one's own")
add = GROUP.add


def _quantized():
    return lambda h: torch.fake_quantize_per_tensor_affine(h.float(), 0.25, 0, -8, 7).to(h.dtype)


def within(function):
    """A function between two layers."""
    return Net(lambda m, x: m.head(function(m.body(x))), body=nn.Linear(4, 6), head=head(6))


def _regions(m, x):
    boxes = torch.tensor([[i, 0.3, 0.2, 3.1, 2.9] for i in range(len(x))], dtype=x.dtype)
    return m.head(torch.tanh(roi_align(m.conv(x), boxes, 2)).flatten(1))


def _deformed(m, x):
    return m.head(torch.tanh(m.conv(x, m.offset(x))).mean((2, 3)))


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
    "autograd.Function, its jvp wrong",
    lambda: within(WrongForwardMode.apply),
    real(4),
    traces=None,
    expected=Expected.reverse,
)
add(
    "autograd.Function, its curvature lost",
    lambda: within(LostCurvature.apply),
    real(4),
    truth=Truth.differences,
    traces=None,
    expected=Expected.reverse,
    expected_two=Expected.differences,
)
add(
    "autograd.Function, its curvature lost in both modes",
    lambda: within(LostInBoth.apply),
    real(4),
    truth=Truth.differences,
    traces=None,
    expected_two=Expected.differences,
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
    "torch.library.custom_op",
    lambda: within(swish),
    real(4),
    traces=None,
    expected=Expected.reverse,
)
add(
    "torchvision's roi_align",
    lambda: Net(_regions, conv=nn.Conv2d(2, 3, 2), head=head(12)),
    real(2, 5, 5),
    truth=Truth.differences,
    traces=None,
    expected=Expected.differences,
)
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
add(
    "fake quantization (torch.ao)",
    lambda: within(_quantized()),
    real(4),
    smooth=False,
    truth=Truth.graph,
    expected=Expected.backward,
    traces=None,
)
