"""The activation against PyTorch's own softplus, and under every kind of derivative."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vmap
from torch.nn import functional as F

from metaloss.inner.forward_mode import jvp
from metaloss.losses.smooth_leaky_relu import smooth_leaky_relu

BETA, GAMMA = 10.0, 0.01


def activation(x):
    return smooth_leaky_relu(x, beta=BETA, gamma=GAMMA)


def reference(x):
    return F.softplus(x, beta=BETA) * (1 - GAMMA) + GAMMA * x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_a_softplus_with_a_slope(dtype):
    x = torch.linspace(-30, 30, 2001, dtype=dtype)
    torch.testing.assert_close(activation(x), reference(x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("x", [-1e30, -1e4, 0.0, 1e4, 1e30])
def test_it_and_its_derivatives_are_finite_far_out(x):
    x = torch.tensor(x, requires_grad=True)
    y = activation(x)
    (slope,) = torch.autograd.grad(y, x, create_graph=True)
    (bend,) = torch.autograd.grad(slope, x)
    assert torch.isfinite(torch.stack([y, slope, bend])).all()
    assert GAMMA <= slope <= 1


def test_its_derivatives_are_those_of_central_differences():
    x = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (x / 3).requires_grad_()
    assert jvp(activation, (x,), (torch.ones_like(x),))[1].min() > GAMMA
    assert gradcheck(activation, x, check_forward_ad=True)
    assert gradgradcheck(activation, x)


def test_forward_over_reverse_over_members_equals_softplus():
    x = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    direction = torch.ones_like(x)

    def curvature(function):
        slopes = vmap(grad(lambda row: function(row).square().sum()))
        return jvp(slopes, (x,), (direction,))[1]

    assert curvature(reference).abs().min() > 0
    torch.testing.assert_close(curvature(activation), curvature(reference), rtol=1e-9, atol=1e-12)


def test_it_can_be_compiled():
    x = torch.linspace(-2, 2, 11, requires_grad=True)
    compiled = torch.compile(activation, backend="aot_eager", fullgraph=True)
    (slope,) = torch.autograd.grad(compiled(x).sum(), x)
    (expected,) = torch.autograd.grad(reference(x).sum(), x)
    torch.testing.assert_close(slope, expected)
