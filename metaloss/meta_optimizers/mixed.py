"""The exact meta-gradient, by mixed-mode differentiation: the default engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from metaloss.inner.problem import InnerProblem, Tangents
from metaloss.meta_optimizers.products import hvp_and_mixed_vjp, mixed_vjp
from metaloss.meta_optimizers.refusals import refused_politely
from metaloss.meta_optimizers.reverse_unroll import ReverseUnroll
from metaloss.types import StoredStep, Tensors


@dataclass(frozen=True, kw_only=True)
class Mixed(ReverseUnroll):
    r"""Exact meta-gradient by forward over reverse mode: one forward-mode pass for each inner step.

    For a direction ḡ in θ, ∂/∂φ ⟨∇_θ L_φ, ḡ⟩ = ∂/∂φ ⟨∂L_φ/∂z, J ḡ⟩, with z = f_θ(X). J ḡ is one
    forward-mode pass through the model, so that only the loss is differentiated twice. Longer
    unrolls go back over the stored θ_k. There, one forward-over-reverse pass for each step gives
    the Hessian-vector product and the mixed product, and memory holds the activations of one step.

    If forward mode is missing or wrong for a model (`probe`), J ḡ is computed by double backward,
    with the same result.

    Cost of an online step, in forward passes of the model: about 9, or about 12 with double
    backward. A plain step takes 3.

    Reference:
        Kemaev, Calian, Zintgraf, Farquhar & van Hasselt, "Scalable Meta-Learning via Mixed-Mode
        Differentiation", ICML 2025.

    Example:
        >>> Mixed(lr=0.01).exact
        True
    """

    methods: ClassVar[tuple[Tangents, ...]] = (
        Tangents.forward,
        Tangents.unfused,
        Tangents.reverse,
    )

    @refused_politely("mixed", lacks="forward-mode derivatives")
    def mixed_vjp(
        self, problem: InnerProblem, phi: Tensors, step: StoredStep, direction: Tensors
    ) -> Tensors:
        """Return ∂/∂φ ⟨∂L_φ/∂z, J·direction⟩: one forward-mode pass, then the loss twice."""
        return mixed_vjp(problem, phi, step, direction)

    @refused_politely("mixed", lacks="forward-mode derivatives")
    def hvp_and_mixed_vjp(
        self, problem: InnerProblem, phi: Tensors, step: StoredStep, direction: Tensors
    ) -> tuple[Tensors, Tensors]:
        """Return Hessian-vector and mixed product, from one forward-over-reverse pass."""
        return hvp_and_mixed_vjp(problem, phi, step, direction)
