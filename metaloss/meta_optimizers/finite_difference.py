"""The meta-gradient by central differences in θ: for models without forward mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from metaloss.errors import MetalossError
from metaloss.inner.gradients import gradient_of
from metaloss.inner.norms import norm
from metaloss.inner.problem import InnerProblem, Tangents
from metaloss.meta_optimizers.products import hvp_and_mixed_vjp, mixed_vjp
from metaloss.meta_optimizers.reverse_unroll import ReverseUnroll
from metaloss.types import StoredStep, Tensors


@dataclass(frozen=True, kw_only=True)
class FiniteDifference(ReverseUnroll):
    r"""Approximate meta-gradient: differences of first derivatives in place of second derivatives.

    ∂/∂φ ⟨∇_θ L_φ, ḡ⟩ ≈ [∂_φ L_φ(θ + εḡ) − ∂_φ L_φ(θ − εḡ)] / 2ε, and in longer unrolls likewise
    ∇²L_φ ḡ from ∇_θ L_φ: the model needs nothing but an ordinary backward pass. The error is
    O(ε²) plus what rounding loses, machine precision / ε: in single precision expect three digits.

    Where θ does not move by the derivative of the outputs (a gradient that is passed straight
    through, a part under ``no_grad``), differences of the outputs are wrong: there two reverse
    passes give the products (`probe`).

    Cost of an online step, in forwards of the model: 8 with an unroll of one step (two plain
    forwards instead of a forward-mode pass), 6 more for every further step.

    Reference:
        Liu, Simonyan & Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, equation 8
        (there with one step of plain SGD and ε = 0.01 / ‖ḡ‖).
    """

    exact = False
    methods: ClassVar[tuple[Tangents, ...]] = (Tangents.differences, Tangents.reverse)

    epsilon: float = field(
        default=0.01, metadata={"help": "ε; with relative=true the length ‖εḡ‖ of the move in θ"}
    )
    relative: bool = field(default=True, metadata={"help": "divide ε by ‖ḡ‖"})

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not self.epsilon > 0:
            raise MetalossError(
                f"meta_optimizer.epsilon={self.epsilon}: expected a positive number"
            )

    def mixed_vjp(
        self, problem: InnerProblem, phi: Tensors, step: StoredStep, direction: Tensors
    ) -> Tensors:
        """Return the central difference of ∂_φ L_φ along ``direction``."""
        if problem.tangents is Tangents.reverse:
            return mixed_vjp(problem, phi, step, direction)

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
        # A direction of zeros moves nothing, whatever ε is.
        scale = torch.where(length > 0, length, 1.0) if self.relative else torch.ones_like(length)
        return self.epsilon / scale


def _moved(params: Tensors, direction: Tensors, size: Tensor) -> Tensors:
    return {name: p + size * direction[name] for name, p in params.items()}


def _quotients(ahead: list[Tensor], behind: list[Tensor], size: Tensor) -> list[Tensor]:
    return [(a - b) / (2 * size) for a, b in zip(ahead, behind, strict=True)]
