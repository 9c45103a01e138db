"""The activation of AdaLFL's loss network, with fast derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def smooth_leaky_relu(x: Tensor, *, beta: float, gamma: float) -> Tensor:
    r"""Return ``(1/β) log(exp(βx) + 1) (1 − γ) + γ x``, element by element.

    A learned loss spends most of its time here. The logarithm is computed as max(x, 0) −
    log σ(β|x|)/β, which cannot overflow and avoids the slow ``log1p``. The derivative is
    (1 − γ) σ(βx) + γ: one sigmoid, where the derivatives of ``softplus`` take several operations.

    Args:
        x: A tensor of any shape.
        beta: Sharpness β of the bend, > 0.
        gamma: Slope γ at −∞, from 0 to 1.

    Example:
        >>> smooth_leaky_relu(torch.tensor([-1.0, 1.0]), beta=100.0, gamma=0.01)
        tensor([-0.0100,  1.0000])
    """
    if torch.compiler.is_compiling():
        # The compiler rejects functions with a custom forward mode. It fuses these operations.
        return functional.softplus(x, beta=beta) * (1 - gamma) + gamma * x
    return _SmoothLeakyReLU.apply(x, beta, gamma)


class _SmoothLeakyReLU(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, beta: float, gamma: float) -> Tensor:
        bend = torch.log(torch.sigmoid(beta * x.abs()))
        return (x.clamp(min=0) - bend / beta) * (1 - gamma) + gamma * x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:
        x, ctx.beta, ctx.gamma = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return slope * _derivative(x, ctx.beta, ctx.gamma), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        (x,) = ctx.saved_tensors
        return tangent * _derivative(x, ctx.beta, ctx.gamma)


def _derivative(x: Tensor, beta: float, gamma: float) -> Tensor:
    return torch.sigmoid(beta * x) * (1 - gamma) + gamma
