"""The anchor of a run's φ, made where φ begins."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor
from torch.func import grad

from metaloss.contracts import Start
from metaloss.core.steps.anchor import Anchor, slopes_at
from metaloss.errors import MetalossError
from metaloss.inner.keys import generator
from metaloss.inner.problem import InnerProblem
from metaloss.starts import Imitate
from metaloss.types import Tensors


def anchor_at(problem: InnerProblem, phi: Tensors, start: Start, outputs: int, seed: int) -> Anchor:
    """Return the φ of one member as an anchor, at outputs and targets drawn as by `Imitate`.

    The options of the run's ``start`` are used if it is `Imitate`.

    Raises:
        MetalossError: If the slopes of the loss there do not depend on φ.
    """
    problem = InnerProblem.of(problem)  # each process computes all rows
    imitate = start if isinstance(start, Imitate) else Imitate()
    like = next(iter(phi.values()))
    batch = imitate.draw(cast(Any, problem.loss), outputs, generator(seed, "anchor"), like)

    def size(phi: Tensors) -> Tensor:
        return slopes_at(problem, phi, batch).square().sum()

    moves: Tensors = grad(size)(phi)
    if not any(bool(value.any()) for value in moves.values()):
        raise MetalossError(
            "meta_optimizer.anchor: at random outputs, the slopes of this loss do not depend on "
            "its parameters: expected 0"
        )
    return Anchor(batch, slopes_at(problem, phi, batch).detach())
