"""An anchor of φ: its distance from its start as a function of outputs and targets."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.func import grad

from metaloss.inner.problem import InnerProblem
from metaloss.inner.weighted import value_of
from metaloss.types import Batch, Tensors


class Anchor(NamedTuple):
    """Random raw outputs (B, C) as inputs, with random targets, and the slopes of the start there.

    ``slopes`` (B, C): ∂L/∂z of each row alone at φ's start. None of these changes during a run.
    """

    batch: Batch
    slopes: Tensor


def slopes_at(problem: InnerProblem, phi: Tensors, batch: Batch) -> Tensor:
    """Return ∂L_φ/∂z (B, C) of each row alone, at raw outputs z: a network moves along it only."""
    outputs, targets = batch

    def value(z: Tensor) -> Tensor:
        return value_of(problem.loss, phi, z, targets, problem.tied_loss)

    # The loss is a mean over rows.
    found: Tensor = len(outputs) * grad(value)(outputs)
    return found


def pull(problem: InnerProblem, phi: Tensors, anchor: Anchor) -> Tensors:
    """Return the gradient in φ of ½ E‖∂L_φ/∂z − ∂L_start/∂z‖², the mean over the anchor's rows."""

    def distance(phi: Tensors, anchor: Anchor) -> Tensor:
        apart = slopes_at(problem, phi, anchor.batch) - anchor.slopes
        return apart.square().sum(1).mean() / 2

    found: Tensors = problem.vmap_members(grad(distance))(phi, anchor)
    return found
