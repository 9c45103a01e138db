"""The meta-step itself: φ along the meta-gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from metaloss.core.steps.anchor import Anchor, pull
from metaloss.inner.gradients import norm
from metaloss.inner.problem import InnerProblem
from metaloss.meta_optimizers.engine import Engine
from metaloss.types import InnerState, StepLosses, Tensors


class MetaStepped(NamedTuple):
    """The result of K inner steps and a meta-step. ``size`` (): norm of the meta-gradient."""

    inner: InnerState
    phi: Tensors
    rule: Any
    losses: StepLosses
    size: Tensor
    notes: Tensor | None


def move_phi(
    problem: InnerProblem,
    engine: Engine,
    phi: Tensors,
    gradient: Tensors,
    rule: Any,
    phase: str,
    total: int,
    anchor: Anchor | None = None,
) -> tuple[Tensors, Any, Tensor]:
    """Return φ, the state of the update rule and the gradient's norm. Frozen parameters stay.

    So does all of φ with ``rule.shrink`` 0, whatever its meta-gradient, which counts as 0 then. A
    member of a group has it after its jury's verdict, while the others take their meta-steps.

    With an anchor, φ is pulled to it with the engine's weight. For ``phase`` and ``total``, see
    `Engine.rule_step`.
    """
    if anchor is not None:
        pulls = problem.run(pull, phi, anchor)
        gradient = {name: slope + engine.anchor * pulls[name] for name, slope in gradient.items()}
    fixed = problem.fixed_phi

    def moved(phi: Tensors, slope: Tensors, rule: Any) -> tuple[Tensors, Any, Tensor]:
        if fixed:
            slope = {n: torch.zeros_like(g) if n in fixed else g for n, g in slope.items()}
        # NaN times an η of 0 would be NaN.
        slope = {name: torch.where(rule.shrink == 0, 0, value) for name, value in slope.items()}
        new, rule = engine.rule_step(phi, slope, rule, phase=phase, total=total)
        return {n: phi[n] if n in fixed else v for n, v in new.items()}, rule, norm(slope.values())

    found: tuple[Tensors, Any, Tensor] = problem.vmap_members(moved)(
        phi, problem.broadcast(gradient), rule
    )
    return found
