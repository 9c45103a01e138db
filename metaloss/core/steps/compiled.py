"""The training step in compiled programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from metaloss.contracts import Plan
from metaloss.core.compilation.program import Compiled
from metaloss.core.steps.state import TrainState
from metaloss.core.steps.step import Step, waits
from metaloss.inner.problem import Forward, InnerProblem, Stepped
from metaloss.types import Batch, InnerState, Tensors, Window


@dataclass(frozen=True, kw_only=True)
class CompiledStep(Step):
    """A step as one program for each of a schedule's few plans.

    An unroll of many steps would be one program of many times the size: there the inner step, the
    judgement and the step back are programs of their own, run as often as needed.

    Args:
        compiles: See `Program`.
    """

    compiles: bool = True
    whole: Compiled = field(init=False, repr=False, compare=False)
    parts: InParts = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the programs' places: a step with another problem has programs of its own."""
        object.__setattr__(self, "whole", Compiled(self.eager(), compiles=self.compiles))
        object.__setattr__(self, "parts", InParts(self.problem, self.compiles))

    def __call__(self, state: TrainState, window: Window, plan: Plan) -> TrainState:
        """Return the state after the plan's steps; see `Step`."""
        if plan.unroll > 1:
            return self._with(self.parts)(state, window, plan)
        if plan.meta_step and waits(self.schedule, plan) and state.pending is None:
            # Before anything waits to be judged: this form occurs once, at the very beginning.
            return super().__call__(state, window, plan)
        new: TrainState = self.whole(state, window, plan)
        return new

    @property
    def compile_seconds(self) -> float:
        """Seconds that were spent on compiling so far."""
        return self.whole.seconds + self.parts.seconds

    def eager(self) -> Step:
        """Return the step without any compilation."""
        return self._with(self.problem)

    def _with(self, problem: Any) -> Step:
        return Step(
            problem=problem,
            engine=self.engine,
            schedule=self.schedule,
            guarded=self.guarded,
            meta_totals=self.meta_totals,
        )


class InParts:
    """A problem whose inner steps, judgements and steps back are compiled, each by itself."""

    def __init__(self, problem: InnerProblem, compiles: bool = True) -> None:
        self._problem, self._compiles = problem, compiles
        self._compiled: dict[Callable[..., Any], Compiled] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._problem, name)

    @property
    def seconds(self) -> float:
        """Seconds that were spent on compiling so far."""
        return sum(one.seconds for one in self._compiled.values())

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return ``function(problem, *arguments)``, compiled."""
        if function not in self._compiled:
            bound = partial(function, self._problem)
            self._compiled[function] = Compiled(bound, compiles=self._compiles)
        return self._compiled[function](*arguments)

    def step(
        self,
        phi: Tensors,
        state: InnerState,
        batch: Batch,
        key: Tensor,
        forward: Forward | None = None,
    ) -> Stepped:
        """Take an inner step; see `InnerProblem`."""
        if forward is not None:
            return self._problem.step(phi, state, batch, key, forward)
        stepped: Stepped = self.run(type(self._problem).step, phi, state, batch, key)
        return stepped

    def judge(
        self, state: InnerState, batch: Batch, key: Tensor, forward: Forward | None = None
    ) -> tuple[Tensors, Tensor]:
        """Judge a state; see `InnerProblem`."""
        if forward is not None:
            return self._problem.judge(state, batch, key, forward)
        judged: tuple[Tensors, Tensor] = self.run(type(self._problem).judge, state, batch, key)
        return judged
