"""The Taylor loss against its formula written out, and every parameter alive."""

import pytest
import torch
from torch.func import grad, vmap

from metaloss.errors import MetalossError
from metaloss.losses.taylor import Taylor, TaylorConfig


def build(order=3, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Taylor(TaylorConfig(order=order), link="identity").double()


def points(seed=1):
    draw = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(2, 20, 3, generator=draw, dtype=torch.float64)


def test_order_three_is_the_published_formula():
    loss = build()
    p, t = points()
    (c1, c2, c3, c11, c12, c21), (a, b) = loss.coefficients, loss.centre
    u, v = t - a, p - b
    published = -(
        c1 * v
        + c2 * v**2 / 2
        + c3 * v**3 / 6
        + c11 * u * v
        + c12 * u * v**2 / 2
        + c21 * u**2 * v / 2
    )
    assert published.abs().min() > 0
    torch.testing.assert_close(loss.pointwise(p, t), published, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [2, 3, 4, 6])
def test_the_expansion_of_a_polynomial_is_the_polynomial(order):
    """−(p + 2t)^n about any point: a Taylor series of order n is exact but for terms in t."""
    loss = build(order)
    p, t = points()
    a, b = loss.centre.detach()
    # The derivatives of (p + 2t)^n at (a, b): n!/(n−k)! · 2^i · (b + 2a)^(n−k), k = i + j.
    falling = [1]
    for k in range(order):
        falling.append(falling[-1] * (order - k))
    with torch.no_grad():
        values = [falling[i + j] * 2**i * (b + 2 * a) ** (order - i - j) for i, j in loss.powers]
        loss.coefficients.copy_(torch.stack([torch.as_tensor(v) for v in values]))
    slope = vmap(vmap(grad(lambda x, y: loss.pointwise(x, y))))(p, t)
    expected = -order * (p + 2 * t) ** (order - 1)
    assert expected.abs().max() > 1
    torch.testing.assert_close(slope, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", [2, 3, 5, 8])
def test_every_parameter_moves_the_slope(order):
    loss = build(order)
    p, t = points()
    p.requires_grad_()
    (slope,) = torch.autograd.grad(loss.pointwise(p, t).sum(), p, create_graph=True)
    draw = torch.Generator().manual_seed(2)
    weights = torch.randn(slope.shape, generator=draw, dtype=slope.dtype)
    moved = torch.autograd.grad((slope * weights).sum(), [loss.coefficients, loss.centre])
    assert torch.cat(moved).abs().min() > 1e-6
    assert sum(x.numel() for x in loss.parameters()) == order * (order + 1) // 2 + 2


@pytest.mark.parametrize("order", [2, 3, 4])
def test_the_printed_formula_is_the_loss(order):
    loss = build(order)
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.copy_(torch.tensor([float(f"{x:.6g}") for x in parameter.tolist()]))
    p, t = points()
    printed = eval(loss.formula(), {"p": p, "t": t})  # our own text, not a stranger's
    torch.testing.assert_close(loss.pointwise(p, t), printed, rtol=1e-4, atol=1e-4)
    assert loss.formula() in repr(loss)


@pytest.mark.parametrize("order", [1, 9, 0, -1])
def test_an_order_out_of_range_is_refused(order):
    with pytest.raises(MetalossError, match=f"loss.order={order}: expected"):
        TaylorConfig(order=order)
