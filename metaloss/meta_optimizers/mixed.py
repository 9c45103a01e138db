"""The exact meta-gradient by mixed-mode differentiation: the default engine."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

from metaloss.inner.problem import InnerProblem, Tangents
from metaloss.meta_optimizers.products import hvp_and_mixed_vjp, mixed_vjp
from metaloss.meta_optimizers.refusals import refused_politely
from metaloss.meta_optimizers.reverse_unroll import ReverseUnroll
from metaloss.types import StoredStep, Tensors


@dataclass(frozen=True, kw_only=True)
class Mixed(ReverseUnroll):
    r"""Exact meta-gradient, forward over reverse: one forward-mode pass for each inner step.

    For a direction ḡ in θ, ∂/∂φ ⟨∇_θ L_φ, ḡ⟩ = ∂/∂φ ⟨∂L_φ/∂z, J ḡ⟩, where z = f_θ(X) and J ḡ is
    one forward-mode pass through the model: only the loss itself is differentiated twice. Longer
    unrolls walk back over the stored θ_k, where one forward-over-reverse pass a step gives both the
    Hessian-vector product and the share of φ, so that memory holds the activations of one step.

    Where forward mode is missing or wrong for a model (`probe`), J ḡ is the pullback of a pullback
    instead: the same number.

    Cost of an online step, in forwards of the model: about 9, where plain training is 3; about 12
    by two reverse passes.

    Reference:
        Kemaev, Calian, Zintgraf, Farquhar & van Hasselt, "Scalable Meta-Learning via Mixed-Mode
        Differentiation", ICML 2025.
    """

    methods: ClassVar[tuple[Tangents, ...]] = (
        Tangents.forward,
        Tangents.unfused,
        Tangents.reverse,
    )

    def mixed_vjp(
        self, problem: InnerProblem, phi: Tensors, step: StoredStep, direction: Tensors
    ) -> Tensors:
        """Return ∂/∂φ ⟨∂L_φ/∂z, J·direction⟩: one forward-mode pass, then the tiny loss twice."""
        with _refusal():
            return mixed_vjp(problem, phi, step, direction)

    def hvp_and_mixed_vjp(
        self, problem: InnerProblem, phi: Tensors, step: StoredStep, direction: Tensors
    ) -> tuple[Tensors, Tensors]:
        """Return the Hessian-vector product and the share of φ in one forward-over-reverse pass."""
        with _refusal():
            return hvp_and_mixed_vjp(problem, phi, step, direction)


def _refusal() -> AbstractContextManager[None]:
    return refused_politely("mixed", lacks="forward-mode derivatives")
