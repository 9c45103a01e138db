"""The steps of a loop of the user's own, eager or compiled."""

from __future__ import annotations

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
from metaloss.meta_optimizers.outer import OuterRule
from metaloss.types import Batch, InnerState, StepLosses, Tensors, Window


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
    _programs: dict[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

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
        self, phi: Tensors, state: InnerState, batches: tuple[Batch, ...], keys: tuple[Tensor, ...]
    ) -> tuple[InnerState, StepLosses]:
        """Return the state after steps on batches, φ at rest, and the losses seen."""
        found: tuple[InnerState, StepLosses] = self._run(
            _rest, len(batches), phi, state, batches, keys
        )
        return found

    def move(
        self, phi: Tensors, state: InnerState, outer: Any, window: Window
    ) -> tuple[InnerState, Tensors, Any, StepLosses]:
        """Return the state after a window, φ moved by the gradient through it, and the losses."""
        found: tuple[InnerState, Tensors, Any, StepLosses] = self._run(
            partial(_move, self.engine), len(window.batches), phi, state, outer, window
        )
        return found

    def _run(self, function: Any, steps: int, *given: Any) -> Any:
        if self.compile is Compile.off:
            return function(self.problem, *given)
        compiles = self.compile is Compile.on
        if steps > 1:
            parts = self._programs.setdefault("parts", InParts(self.problem, compiles))
            return function(parts, *given)
        name = "rest" if function is _rest else "move"
        if name not in self._programs:
            self._programs[name] = Compiled(partial(function, self.problem), compiles=compiles)
        return self._programs[name](*given)


def _rest(
    problem: InnerProblem,
    phi: Tensors,
    state: InnerState,
    batches: tuple[Batch, ...],
    keys: tuple[Tensor, ...],
) -> tuple[InnerState, StepLosses]:
    inner, task = [], []
    for batch, key in zip(batches, keys, strict=True):
        stepped = problem.step(phi, state, batch, key)
        state = stepped.state
        inner.append(stepped.loss)
        task.append(stepped.task)
    unseen = torch.full_like(task[0], float("nan"))
    return state, StepLosses(torch.stack(inner), torch.stack(task), unseen)


def _move(
    engine: OuterRule,
    problem: InnerProblem,
    phi: Tensors,
    state: InnerState,
    outer: Any,
    window: Window,
) -> tuple[InnerState, Tensors, Any, StepLosses]:
    result = engine.meta_gradient(problem, phi, state, window)
    phi, outer = engine.outer_step(phi, result.gradient, outer, phase="train", total=0)
    return result.state, phi, outer, result.losses
