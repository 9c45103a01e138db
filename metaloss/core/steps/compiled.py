"""The training step in compiled programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from metaloss.contracts import Plan
from metaloss.core.compilation.program import Compiled
from metaloss.core.steps.state import TrainState
from metaloss.core.steps.step import Step, Tried, waits
from metaloss.inner.problem import InnerProblem
from metaloss.types import Window


class Programs:
    """Runs functions of a problem as programs, each compiled at its first use."""

    def __init__(self, problem: InnerProblem, *, compiles: bool = True) -> None:
        self._problem, self._compiles = problem, compiles
        self._compiled: dict[Callable[..., Any], Compiled] = {}

    @property
    def seconds(self) -> float:
        """Seconds that were spent on compiling so far."""
        return sum(one.seconds for one in self._compiled.values())

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return ``function(problem, *arguments)``."""
        if function not in self._compiled:
            bound = partial(function, self._problem)
            self._compiled[function] = Compiled(bound, compiles=self._compiles)
        with self._problem.exchanging():
            return self._compiled[function](*arguments)


class CompiledStep:
    """A `Step` as one program for each kind of plan of the schedule.

    An unroll of many steps would be a very large program. So there the inner step, the task loss
    and the backward step are separate programs, which are run repeatedly.

    Attributes:
        plain: The step without any compilation.
    """

    def __init__(self, step: Step, *, compiles: bool = True) -> None:
        self.plain, self._compiles = step, compiles
        self.whole = Compiled(partial(_taken, step), compiles=compiles)
        self._programs = Programs(step.problem, compiles=compiles)
        self._in_parts = step.on(replace(step.problem, programs=self._programs))

    def __call__(self, state: TrainState, window: Window, plan: Plan) -> TrainState:
        """Return the state after the plan's steps; see `Step`."""
        if plan.unroll > 1:
            return self._in_parts(state, window, plan)
        if plan.meta_step and waits(self.plain.schedule, plan) and state.pending is None:
            # Occurs once at the beginning, when there are no steps yet to compute the task loss of.
            return self.plain(state, window, plan)
        # A CPU can read the guard's verdict, so that good weights need not be chosen one by one.
        reads = state.guard.bad.device.type == "cpu"
        with self.plain.problem.exchanging():
            found = self.whole(state, window, plan, not reads)
        new: TrainState = self.plain.kept(state, found) if reads else found
        return new

    @property
    def compile_seconds(self) -> float:
        """Seconds that were spent on compiling so far."""
        return self.whole.seconds + self._programs.seconds

    def on(self, problem: InnerProblem) -> CompiledStep:
        """Return the same step on another problem, with separate programs."""
        return CompiledStep(self.plain.on(problem), compiles=self._compiles)


def _taken(
    step: Step, state: TrainState, window: Window, plan: Plan, chooses: bool
) -> TrainState | Tried:
    """Return the state after the plan's steps, or what the guard is to choose from."""
    return step(state, window, plan) if chooses else step.tried(state, window, plan)
