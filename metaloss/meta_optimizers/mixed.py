"""The exact meta-gradient by mixed-mode differentiation: the default engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call, grad, jvp
from torch.utils import _pytree as pytree

from metaloss.inner.problem import InnerProblem, gradient_of
from metaloss.meta_optimizers.outer import OuterRule
from metaloss.types import Batch, InnerState, MetaGradient, StepLosses, Tensors, Window


class _Step(NamedTuple):
    """An inner step that was taken: where it began, what it saw."""

    state: InnerState
    grads: Tensors
    batch: Batch
    key: Tensor


@dataclass(frozen=True, kw_only=True)
class Mixed(OuterRule):
    r"""Exact meta-gradient, forward over reverse: one forward-mode pass for each inner step.

    With θ' = U(g, θ), g = ∇_θ L_φ(θ) and v = ∇ L_task(θ'), let ḡ be the pullback of v through U.
    The step's share of the meta-gradient is ∂/∂φ ⟨∇_θ L_φ, ḡ⟩ = ∂/∂φ ⟨∂L_φ/∂z, J ḡ⟩, where
    z = f_θ(X) and J ḡ is one forward-mode pass: only the loss itself is differentiated twice.
    Longer unrolls walk back over the stored θ_k, where one forward-over-reverse pass a step gives
    both the next adjoint (with the Hessian-vector product ∇²L_φ ḡ) and the share of φ, so that
    memory holds the activations of one step. Buffers count as constants.

    Reference:
        Kemaev, Calian, Zintgraf, Farquhar & van Hasselt, "Scalable Meta-Learning via Mixed-Mode
        Differentiation", ICML 2025.
    """

    def meta_gradient(
        self, problem: InnerProblem, phi: Tensors, state: InnerState, window: Window
    ) -> MetaGradient:
        """Take K inner steps from ``state``; return d(task loss)/dφ there. See the contract."""
        steps: list[_Step] = []
        inner, train_task = [], []
        for batch, key in zip(window.batches, window.keys, strict=True):
            grads, buffers, loss, task = problem.gradient(phi, state, batch, key)
            steps.append(_Step(state, grads, batch, key))
            with torch.no_grad():
                params, optimizer = problem.optimizer.update(grads, state.optimizer, state.params)
            state = InnerState(params, buffers, optimizer)
            inner.append(loss)
            train_task.append(task)
        adjoint, meta_task = problem.judge(state, window.meta_batch, window.meta_key)
        gradient = walk_back(problem, phi, steps, adjoint)
        losses = StepLosses(torch.stack(inner), torch.stack(train_task), meta_task)
        return MetaGradient(gradient, state, losses)


def walk_back(problem: InnerProblem, phi: Tensors, steps: list[_Step], adjoint: Tensors) -> Tensors:
    """Return Σ_k of the steps' shares of d(task loss)/dφ, from the adjoint of the last θ."""
    total = {name: torch.zeros_like(value) for name, value in phi.items()}
    state_adjoint: Any = None
    for index in reversed(range(len(steps))):
        step = steps[index]
        direct, tangent, state_adjoint = _pull_update(problem, step, adjoint, state_adjoint)
        if index == 0:
            share = _share_of_phi(problem, phi, step, tangent)
        else:
            curved, share = _forward_over_reverse(problem, phi, step, tangent)
            adjoint = {name: direct[name] + curved[name] for name in direct}
        total = {name: total[name] + share[name] for name in total}
    return total


def _pull_update(
    problem: InnerProblem, step: _Step, adjoint: Tensors, state_adjoint: Any
) -> tuple[Tensors, Tensors, Any]:
    """Pull (θ', state')'s adjoint through the optimizer's update, to θ, ∇_θ L and its state."""
    leaves, spec = pytree.tree_flatten((step.state.params, step.grads, step.state.optimizer))
    moving = [index for index, leaf in enumerate(leaves) if leaf.is_floating_point()]
    leaves = [leaf.detach() for leaf in leaves]
    for index in moving:
        leaves[index].requires_grad_()
    with torch.enable_grad():
        params, grads, optimizer = pytree.tree_unflatten(leaves, spec)
        outputs = pytree.tree_leaves(problem.optimizer.update(grads, optimizer, params))
    cotangents = pytree.tree_leaves(adjoint)
    if state_adjoint is None:
        outputs = outputs[: len(cotangents)]
    else:
        cotangents = cotangents + pytree.tree_leaves(state_adjoint)
    kept = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
    pulled = torch.autograd.grad(
        [output for output, _ in kept],
        [leaves[index] for index in moving],
        [cotangent for _, cotangent in kept],
        allow_unused=True,
        materialize_grads=True,
    )
    # Integer leaves (the step counter) get zeros that no one reads, so that the trees match.
    result = [torch.zeros_like(leaf) for leaf in leaves]
    for index, value in zip(moving, pulled, strict=True):
        result[index] = value
    return pytree.tree_unflatten(result, spec)


def _share_of_phi(problem: InnerProblem, phi: Tensors, step: _Step, tangent: Tensors) -> Tensors:
    """Return ∂/∂φ ⟨∂L_φ/∂z, J·tangent⟩: one forward-mode pass, then the tiny loss twice."""

    def outputs_at(params: Tensors) -> Tensor:
        return problem.predict(params, step.state.buffers, step.batch, step.key)[0]

    with torch.no_grad():
        outputs, moved = jvp(outputs_at, (step.state.params,), (tangent,))
    leaves = {name: value.detach().requires_grad_() for name, value in phi.items()}
    outputs = outputs.detach().requires_grad_()
    with torch.enable_grad():
        loss = functional_call(problem.loss, leaves, (outputs, step.batch.targets))
        (slope,) = torch.autograd.grad(loss, outputs, create_graph=True)
        values = gradient_of((slope * moved).sum(), list(leaves.values()))
    return dict(zip(leaves, values, strict=True))


def _forward_over_reverse(
    problem: InnerProblem, phi: Tensors, step: _Step, tangent: Tensors
) -> tuple[Tensors, Tensors]:
    """Return (∇²_θθ L · tangent, ∂/∂φ ⟨∇_θ L, tangent⟩) in one pass."""

    def loss_at(params: Tensors, phi_at: Tensors) -> Tensor:
        outputs, _ = problem.predict(params, step.state.buffers, step.batch, step.key)
        return problem.learned_loss(phi_at, outputs, step.batch.targets)

    def gradient_at(params: Tensors) -> tuple[Tensors, Tensors]:
        return grad(loss_at, argnums=(0, 1))(params, phi)

    _, (curved, share) = jvp(gradient_at, (step.state.params,), (tangent,))
    return curved, share
