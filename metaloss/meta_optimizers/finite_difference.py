"""The meta-gradient by central differences in θ: for models without forward mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from metaloss.errors import check_range
from metaloss.inner.gradients import gradient_of, norm
from metaloss.inner.problem import InnerProblem, Tangents
from metaloss.inner.weighted import held
from metaloss.meta_optimizers.products import hvp_and_mixed_vjp, mixed_vjp
from metaloss.meta_optimizers.reverse_unroll import ReverseUnroll
from metaloss.types import StoredStep, Tensors


@dataclass(frozen=True, kw_only=True)
class FiniteDifference(ReverseUnroll):
    r"""Approximate meta-gradient: differences of first derivatives instead of second derivatives.

    ∂/∂φ ⟨∇_θ L_φ, ḡ⟩ ≈ [∂_φ L_φ(θ + εḡ) − ∂_φ L_φ(θ − εḡ)] / 2ε. In longer unrolls, ∇²L_φ ḡ is
    computed from ∇_θ L_φ in the same way. The model needs only ordinary backward passes. The error
    is O(ε²) plus a rounding error of machine precision / ε: about three digits in single precision.

    If the gradients of the model are not derivatives of its outputs (a straight-through estimator,
    a part under ``no_grad``), differences of the outputs are wrong. Then the products are computed
    by two reverse-mode passes (`probe`).

    Cost of an online step, in forward passes of the model: 8 with an unroll of one step, 6 more for
    every further step.

    Raises:
        MetalossError: If an option is out of range.

    Reference:
        Liu, Simonyan & Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, equation 8
        (for one step of plain SGD, with ε = 0.01 / ‖ḡ‖).

    Example:
        >>> FiniteDifference(epsilon=0.001).exact
        False
    """

    exact = False
    methods: ClassVar[tuple[Tangents, ...]] = (Tangents.differences, Tangents.reverse)

    epsilon: float = field(
        default=0.01,
        metadata={"help": "ε > 0; with relative=true, the length ‖εḡ‖ of the step in θ"},
    )
    relative: bool = field(default=True, metadata={"help": "divide ε by ‖ḡ‖"})

    def __post_init__(self) -> None:
        super().__post_init__()
        option = "meta_optimizer.epsilon"
        check_range(option, self.epsilon, self.epsilon > 0, "a positive number")

    def mixed_vjp(
        self, problem: InnerProblem, phi: Tensors, step: StoredStep, direction: Tensors
    ) -> Tensors:
        """Return the central difference of ∂_φ L_φ along ``direction``."""
        if problem.tangents is Tangents.reverse:
            return mixed_vjp(problem, phi, step, direction)
        step = held(problem, step)

        def slope_at(params: Tensors) -> list[Tensor]:
            with torch.no_grad():
                outputs = problem.step_outputs(params, step)
            leaves = {name: value.detach().requires_grad_() for name, value in phi.items()}
            with torch.enable_grad():
                loss = problem.step_loss(leaves, outputs, step)
                return list(gradient_of(loss, list(leaves.values())))

        values = self._difference(problem, slope_at, step.state.params, direction)
        return dict(zip(phi, values, strict=True))

    def hvp_and_mixed_vjp(
        self, problem: InnerProblem, phi: Tensors, step: StoredStep, direction: Tensors
    ) -> tuple[Tensors, Tensors]:
        """Return the central differences of ∇_θ L_φ and ∂_φ L_φ along ``direction``."""
        if problem.tangents is Tangents.reverse:
            return hvp_and_mixed_vjp(problem, phi, step, direction)
        step = held(problem, step)

        def slopes_at(params: Tensors) -> list[Tensor]:
            moving = {name: value.detach().requires_grad_() for name, value in params.items()}
            leaves = {name: value.detach().requires_grad_() for name, value in phi.items()}
            with torch.enable_grad():
                outputs = problem.step_outputs(moving, step)
                loss = problem.step_loss(leaves, outputs, step)
                return list(gradient_of(loss, [*moving.values(), *leaves.values()]))

        values = self._difference(problem, slopes_at, step.state.params, direction)
        count = len(step.state.params)
        curved = dict(zip(step.state.params, values[:count], strict=True))
        return curved, dict(zip(phi, values[count:], strict=True))

    def _difference(
        self,
        problem: InnerProblem,
        slopes_at: Callable[[Tensors], list[Tensor]],
        params: Tensors,
        direction: Tensors,
    ) -> list[Tensor]:
        size = problem.vmap_members(self._size)(direction)
        ahead = slopes_at(problem.vmap_members(_moved)(params, direction, size))
        behind = slopes_at(problem.vmap_members(_moved)(params, direction, -size))
        return problem.vmap_members(_quotients)(ahead, behind, size)

    def _size(self, direction: Tensors) -> Tensor:
        length = norm(direction.values())
        # With a direction of zeros, θ does not change for any ε.
        scale = torch.where(length > 0, length, 1.0) if self.relative else torch.ones_like(length)
        return self.epsilon / scale


def _moved(params: Tensors, direction: Tensors, size: Tensor) -> Tensors:
    return {name: p + size * direction[name] for name, p in params.items()}


def _quotients(ahead: list[Tensor], behind: list[Tensor], size: Tensor) -> list[Tensor]:
    return [(a - b) / (2 * size) for a, b in zip(ahead, behind, strict=True)]
