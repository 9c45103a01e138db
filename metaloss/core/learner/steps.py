"""The steps of a loop of the user's own, eager or compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metaloss.config import Compile
from metaloss.core.compilation.policy import obstacle
from metaloss.core.compilation.program import Compiled
from metaloss.core.steps import guard as guards
from metaloss.core.steps.compiled import InParts
from metaloss.core.steps.step import floats, move_phi
from metaloss.errors import MetalossError
from metaloss.inner.norms import norm
from metaloss.inner.problem import InnerProblem
from metaloss.inner.steps import take_steps
from metaloss.meta_optimizers.outer import OuterRule
from metaloss.types import Batch, InnerState, ReplayStep, Tensors, Window

Function = Callable[..., Any]


class LearnerLosses(NamedTuple):
    """What a step of a `Learner` saw, as tensors on the device (no host sync).

    ``inner`` (K,), ``train_task`` (K,), ``meta_task`` (): see `metaloss.types.StepLosses`.
    ``taken`` (), bool: whether the step was taken; None where nothing was checked.
    """

    inner: Tensor
    train_task: Tensor
    meta_task: Tensor
    taken: Tensor | None


@dataclass(frozen=True, kw_only=True)
class OwnSteps:
    """Steps of a model alone, and of a model and then its loss.

    Attributes:
        problem: The functions of an inner step.
        engine: How φ moves.
        guarded: Whether a step that is not finite is not taken.
        compile: ``off``, ``trace`` or ``on``. Compiled, one step is one program; of several steps
            in a row each is, and each step back.
    """

    problem: InnerProblem
    engine: OuterRule
    guarded: bool
    compile: Compile

    @cached_property
    def _whole(self) -> tuple[Function, Function]:
        """The two kinds of step, each as one program if they are to be compiled."""
        steps = (self._rest_of(self.problem), self._move_of(self.problem))
        if self.compile is Compile.off:
            return steps
        rest, move = (Compiled(step, compiles=self.compile is Compile.on) for step in steps)
        return rest, move

    @cached_property
    def _parts(self) -> Any:
        if self.compile is Compile.off:
            return self.problem
        return InParts(self.problem, self.compile is Compile.on)

    def _rest_of(self, problem: Any) -> Function:
        return partial(_rest, problem, self.guarded)

    def _move_of(self, problem: Any) -> Function:
        return partial(_move, problem, self.engine, self.guarded)

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
        self, phi: Tensors, state: InnerState, unroll: tuple[ReplayStep, ...]
    ) -> tuple[InnerState, LearnerLosses]:
        """Return the state after steps on batches, φ at rest, and the losses seen."""
        run = self._rest_of(self._parts) if len(unroll) > 1 else self._whole[0]
        found: tuple[InnerState, LearnerLosses] = run(phi, state, unroll)
        return found

    def move(
        self, phi: Tensors, state: InnerState, outer: Any, window: Window
    ) -> tuple[InnerState, Tensors, Any, LearnerLosses]:
        """Return the state after a window, φ moved by the gradient through it, and the losses."""
        run = self._move_of(self._parts) if len(window.batches) > 1 else self._whole[1]
        found: tuple[InnerState, Tensors, Any, LearnerLosses] = run(phi, state, outer, window)
        return found


def _rest(
    problem: InnerProblem,
    guarded: bool,
    phi: Tensors,
    state: InnerState,
    unroll: tuple[ReplayStep, ...],
) -> tuple[InnerState, LearnerLosses]:
    new, _, inner, task = take_steps(problem, phi, state, unroll, keeps=lambda _: False)
    nobody = torch.full_like(inner[0], float("nan"))
    if not guarded:
        return new, LearnerLosses(inner, task, nobody, None)
    ok = _sound(new, [inner])
    return guards.choose(ok, new, state), LearnerLosses(inner, task, nobody, ok)


def _move(
    problem: InnerProblem,
    engine: OuterRule,
    guarded: bool,
    phi: Tensors,
    state: InnerState,
    outer: Any,
    window: Window,
) -> tuple[InnerState, Tensors, Any, LearnerLosses]:
    result = engine.meta_gradient(problem, phi, state, window)
    gradient = problem.broadcast(result.gradient)
    moved, after = move_phi(problem, engine, phi, gradient, outer, "train", 0)
    if not guarded:
        return result.state, moved, after, LearnerLosses(*result.losses, None)
    ok = _sound(result.state, [result.losses.inner, *floats((moved, after))])
    new = guards.choose(ok, (result.state, moved, after), (state, phi, outer))
    return *new, LearnerLosses(*result.losses, ok)


def _sound(state: InnerState, others: list[Tensor]) -> Tensor:
    """Return whether all numbers that a step led to are finite. Buffers may hold infinities."""
    return torch.isfinite(norm([*floats((state.params, state.optimizer)), *others]))
