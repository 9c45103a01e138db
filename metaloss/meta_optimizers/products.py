"""Products of a model's derivative matrices with a direction in θ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.func import grad

from metaloss.inner.forward_mode import jvp
from metaloss.inner.gradients import check_whole, gradient_of, reached_by
from metaloss.inner.one_thread import one_thread
from metaloss.inner.problem import InnerProblem, Tangents
from metaloss.types import StoredStep, Tensors


def mixed_vjp(problem: InnerProblem, phi: Tensors, step: StoredStep, direction: Tensors) -> Tensors:
    """Return ∂/∂φ ⟨∇_θ L_φ, direction⟩ at the step's θ: J · direction, then the loss twice."""
    outputs, moved = outputs_along(problem, step, direction)
    leaves = {name: value.detach().requires_grad_() for name, value in phi.items()}
    outputs = outputs.detach().requires_grad_()
    with torch.enable_grad():
        loss = problem.step_loss(leaves, outputs, step)
        (slope,) = gradient_of(loss, [outputs], create_graph=True)
        values = gradient_of((slope * moved).sum(), list(leaves.values()))
    return dict(zip(leaves, values, strict=True))


def outputs_along(
    problem: InnerProblem, step: StoredStep, direction: Tensors
) -> tuple[Tensor, Tensor]:
    """Return the raw outputs z at the step's θ, and J · direction; both detached."""

    def outputs_at(params: Tensors) -> Tensor:
        return problem.step_outputs(params, step)

    if problem.tangents is not Tangents.reverse:
        with torch.no_grad(), _kernels(problem.tangents):
            outputs, moved = jvp(outputs_at, (step.state.params,), (direction,))
        return outputs, moved
    # Jᵀu is linear in u, so that its own vector-Jacobian product with the direction is J·direction
    # for any u. Not for u = 0, of which some backward passes take the logarithm.
    leaves = {name: p.detach().requires_grad_() for name, p in step.state.params.items()}
    with torch.enable_grad():
        outputs = outputs_at(leaves)
        cotangent = torch.ones_like(outputs, requires_grad=True)
        along = _along((outputs * cotangent).sum(), leaves, direction)
    return outputs.detach(), gradient_of(along, [cotangent])[0]


def hvp_and_mixed_vjp(
    problem: InnerProblem, phi: Tensors, step: StoredStep, direction: Tensors
) -> tuple[Tensors, Tensors]:
    """Return (∇²_θθ L_φ · direction, ∂/∂φ ⟨∇_θ L_φ, direction⟩) at the step's θ."""
    if problem.tangents is Tangents.reverse:
        return _reverse_over_reverse(problem, phi, step, direction)
    return _forward_over_reverse(problem, phi, step, direction)


def _forward_over_reverse(
    problem: InnerProblem, phi: Tensors, step: StoredStep, direction: Tensors
) -> tuple[Tensors, Tensors]:
    def loss_at(params: Tensors, phi_at: Tensors) -> Tensor:
        return problem.step_loss(phi_at, problem.step_outputs(params, step), step).sum()

    def gradient_at(params: Tensors) -> tuple[Tensors, Tensors]:
        return grad(loss_at, argnums=(0, 1))(params, phi)

    with _kernels(problem.tangents):
        _, (curved, share) = jvp(gradient_at, (step.state.params,), (direction,))
    return curved, share


def _reverse_over_reverse(
    problem: InnerProblem, phi: Tensors, step: StoredStep, direction: Tensors
) -> tuple[Tensors, Tensors]:
    leaves = {name: p.detach().requires_grad_() for name, p in step.state.params.items()}
    own = {name: value.detach().requires_grad_() for name, value in phi.items()}
    with torch.enable_grad():
        loss = problem.step_loss(own, problem.step_outputs(leaves, step), step)
        along = _along(loss.sum(), leaves, direction)
    values = gradient_of(along, [*leaves.values(), *own.values()])
    curved = dict(zip(leaves, values, strict=False))
    return curved, dict(zip(own, values[len(leaves) :], strict=True))


def _along(value: Tensor, leaves: Tensors, direction: Tensors) -> Tensor:
    """Return ⟨∇ value, direction⟩ with its graph."""
    slopes = reached_by(value, list(leaves.values()), create_graph=True)
    products = [
        (slope * direction[name]).sum()
        for name, slope in zip(leaves, slopes, strict=True)
        if slope is not None
    ]
    if not products:
        return torch.zeros_like(value)
    along = torch.stack(products).sum()
    check_whole(along)
    return along


@contextmanager
def _kernels(tangents: Tangents) -> Iterator[None]:
    if tangents is Tangents.forward:
        yield
        return
    backends: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    with one_thread():
        before = [backend.enabled for backend in backends]
        try:
            for backend in backends:
                backend.enabled = False
            yield
        finally:
            for backend, enabled in zip(backends, before, strict=True):
                backend.enabled = enabled
