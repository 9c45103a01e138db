"""Learning to reweight: the rows of each batch are weighed anew, before its step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metaloss.core.steps.move_phi import MetaStepped
from metaloss.inner.gradients import norm
from metaloss.inner.problem import InnerProblem
from metaloss.inner.steps import take_steps
from metaloss.meta_optimizers.engine import Engine
from metaloss.types import InnerState, Tensors, Window


def reweighted_step(
    problem: InnerProblem,
    engine: Engine,
    phi: Tensors,
    inner: InnerState,
    rule: Any,
    window: Window,
) -> MetaStepped:
    r"""Take a step under the weights w_i = max(0, −∂T/∂ε_i) / Σ_j max(0, −∂T/∂ε_j), at ε = 0.

    The loss is Σ ε_i ℓ_i, and φ is ε. The derivative is that through a step of the inner optimizer
    at ε = 0, whose result is dropped. For SGD without momentum and weight decay, this step does not
    move, and −∂T/∂ε_i = α ⟨∇ℓ_i, ∇T⟩ at θ. If no row has a positive weight, all of them are 0.
    The window has one batch, and of ``phi`` only the shapes are used.

    Reference:
        Ren, Zeng, Yang & Urtasun, "Learning to Reweight Examples for Robust Deep Learning", ICML
        2018, algorithm 1.
    """
    nothing = {name: value.new_zeros(value.shape) for name, value in phi.items()}
    found = engine.meta_gradient(problem, nothing, inner, window)

    def weighed(slopes: Tensors) -> tuple[Tensors, Tensor]:
        useful = {name: (-slope).clamp(min=0) for name, slope in slopes.items()}
        total = torch.stack([value.sum() for value in useful.values()]).sum()
        total = torch.where(total > 0, total, torch.ones_like(total))
        return {name: value / total for name, value in useful.items()}, norm(slopes.values())

    weights, size = problem.vmap_members(weighed)(problem.broadcast(found.gradient))
    taken = take_steps(problem, weights, inner, window.steps, keeps=lambda _: False)
    losses = taken.losses._replace(meta_task=found.losses.meta_task)
    rule = rule._replace(taken=rule.taken + 1)
    return MetaStepped(taken.state, weights, rule, losses, size, taken.notes)
