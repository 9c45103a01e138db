"""The steps of a loop of the user's own, eager or compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metaloss.config import Compile
from metaloss.core.compile_choice import obstacle
from metaloss.core.compiled import InParts
from metaloss.core.programs import Compiled
from metaloss.errors import MetalossError
from metaloss.inner.problem import InnerProblem
from metaloss.inner.steps import take_steps
from metaloss.meta_optimizers.outer import OuterRule
from metaloss.types import Batch, InnerState, Seen, StepLosses, Tensors, Window

Function = Callable[..., Any]


@dataclass(frozen=True)
class OwnSteps:
    """Steps of a model alone, and of a model and then its loss.

    Args:
        problem: The functions of an inner step.
        engine: How φ moves.
        compile: ``off``, ``trace`` or ``on``. Compiled, one step is one program; of several steps
            in a row each is, and each step back.
    """

    problem: InnerProblem
    engine: OuterRule
    compile: Compile
    _rest: Function = field(init=False, repr=False, compare=False)
    _move: Function = field(init=False, repr=False, compare=False)
    _parts: InnerProblem = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the programs' places; nothing is compiled before it is called."""
        parts: Any = self.problem
        steps: list[Function] = [
            partial(_rest, self.problem),
            partial(_move, self.problem, self.engine),
        ]
        if self.compile is not Compile.off:
            compiles = self.compile is Compile.on
            parts = InParts(self.problem, compiles)
            steps = [Compiled(step, compiles=compiles) for step in steps]
        for name, value in zip(("_rest", "_move", "_parts"), (*steps, parts), strict=True):
            object.__setattr__(self, name, value)

    def check(self, phi: Tensors, state: InnerState, batch: Batch, key: Tensor) -> None:
        """Raise a MetalossError if steps from such a state are to be compiled and cannot be."""
        if self.compile is Compile.off:
            return
        # Eagerly first: a mistake of the user's own is told as what it is.
        self.problem.step(phi, state, batch, key)
        reason = obstacle(self.compile, self.problem, self.engine, state, batch, learns=True)
        if reason:
            raise MetalossError(f"compile={self.compile.value}: {reason}: use compile=off")

    def rest(
        self, phi: Tensors, state: InnerState, unroll: tuple[Seen, ...]
    ) -> tuple[InnerState, StepLosses]:
        """Return the state after steps on batches, φ at rest, and the losses seen."""
        run = partial(_rest, self._parts) if len(unroll) > 1 else self._rest
        found: tuple[InnerState, StepLosses] = run(phi, state, unroll)
        return found

    def move(
        self, phi: Tensors, state: InnerState, outer: Any, window: Window
    ) -> tuple[InnerState, Tensors, Any, StepLosses]:
        """Return the state after a window, φ moved by the gradient through it, and the losses."""
        several = len(window.batches) > 1
        run = partial(_move, self._parts, self.engine) if several else self._move
        found: tuple[InnerState, Tensors, Any, StepLosses] = run(phi, state, outer, window)
        return found


def _rest(
    problem: InnerProblem, phi: Tensors, state: InnerState, unroll: tuple[Seen, ...]
) -> tuple[InnerState, StepLosses]:
    state, _, inner, task = take_steps(problem, phi, state, unroll, keeps=lambda _: False)
    return state, StepLosses(inner, task, torch.full_like(inner[0], float("nan")))


def _move(
    problem: InnerProblem,
    engine: OuterRule,
    phi: Tensors,
    state: InnerState,
    outer: Any,
    window: Window,
) -> tuple[InnerState, Tensors, Any, StepLosses]:
    result = engine.meta_gradient(problem, phi, state, window)
    phi, outer = engine.outer_step(phi, result.gradient, outer, phase="train", total=0)
    return result.state, phi, outer, result.losses
