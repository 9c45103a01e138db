"""What one segment does to the state: the only place where θ or φ moves.

The same code serves offline and online, because a schedule only decides; one run or many at once,
because a problem may be stacked.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.contracts import MetaBatch, Plan, Schedule
from metaloss.core.steps import guard as guards
from metaloss.core.steps.state import Meter, Pending, TrainState
from metaloss.inner.norms import norm
from metaloss.inner.problem import Forward, InnerProblem
from metaloss.inner.steps import as_replay_steps, take_steps
from metaloss.meta_optimizers.outer import OuterRule
from metaloss.types import Judgement, StepLosses, Tensors, Window


@dataclass(frozen=True, kw_only=True)
class Step:
    """``(state, window, plan) -> state``: a pure function of tensors, by a plan's few forms.

    Attributes:
        problem: The functions of an inner step.
        engine: How φ moves.
        schedule: Whether the next batch judges.
        guarded: Whether steps are checked.
        meta_totals: Meta-steps of each phase, for the outer rate's schedule.
    """

    problem: InnerProblem
    engine: OuterRule
    schedule: Schedule
    guarded: bool
    meta_totals: dict[str, int]

    @property
    def compile_seconds(self) -> float:
        """Seconds that were spent on compiling so far."""
        return 0.0

    def eager(self) -> Step:
        """Return the step without any compilation."""
        return self

    def __call__(self, state: TrainState, window: Window, plan: Plan) -> TrainState:
        """Return the state after the plan's steps; a bad segment changes nothing but the guard."""
        new, losses, size = self._take(state, window, plan)
        new = new._replace(meter=self._measured(state.meter, losses, size))
        if not self.guarded:
            return new
        others = [] if new.phi is state.phi else floats((new.phi, new.outer))
        ok, memory = self.problem.broadcast(
            self.problem.each(_checked)(
                state.guard, state.inner.params, new.inner.params, losses.train_task, others
            )
        )
        kept = self._choose(
            ok,
            (new.inner, new.phi, new.outer, new.meter),
            (state.inner, state.phi, state.outer, state.meter),
        )
        pending = new.pending and new.pending._replace(passed=ok)
        inner, phi, outer, meter = kept
        return TrainState(inner, phi, outer, pending, memory, meter)

    def _take(
        self, state: TrainState, window: Window, plan: Plan
    ) -> tuple[TrainState, StepLosses, Tensor | None]:
        """Take the steps, and move φ if the plan says so."""
        size = judged = forward = None
        if state.pending is not None:
            # The batch that judges the last steps is the next to be stepped on: one pass for both.
            forward = self.problem.forward(state.inner, window.batches[0], window.keys[0])
            state, judged, size = self._judge_pending(state, window, forward, plan.phase)
        if plan.meta_step and not waits(self.schedule, plan):
            result = self.engine.meta_gradient(self.problem, state.phi, state.inner, window)
            state, size = self._move_phi(state, result.gradient, plan.phase)
            return state._replace(inner=result.state), result.losses, size
        unroll = as_replay_steps(window.batches, window.keys)
        keeps = partial(self.engine.keeps, unroll=plan.unroll)
        taken = take_steps(self.problem, state.phi, state.inner, unroll, keeps, forward)
        state = state._replace(inner=taken.state)
        one = taken.inner[..., 0]
        if plan.meta_step:
            passed = torch.ones_like(one, dtype=torch.bool)
            state = state._replace(pending=Pending(tuple(taken.records), passed))
        judged = torch.full_like(one, float("nan")) if judged is None else judged
        return state, StepLosses(taken.inner, taken.task, judged), size

    def _judge_pending(
        self, state: TrainState, window: Window, forward: Forward, phase: str
    ) -> tuple[TrainState, Tensor, Tensor]:
        """Let the next training batch, with the dropout mask of its own step, judge the last ones.

        ``forward`` is the pass over that batch, which its own step goes on with.
        """
        pending, batch, key = state.pending, window.batches[0], window.keys[0]
        assert pending is not None
        adjoint, judged = self.problem.judge(state.inner, batch, key, forward)
        gradient = self.engine.gradient_back(
            self.problem, state.phi, pending.steps, Judgement(batch, key, adjoint)
        )
        moved, size = self._move_phi(state, gradient, phase)
        phi, outer = self._choose(
            pending.passed, (moved.phi, moved.outer), (state.phi, state.outer)
        )
        return state._replace(phi=phi, outer=outer, pending=None), judged, size

    def _move_phi(
        self, state: TrainState, gradient: Tensors, phase: str
    ) -> tuple[TrainState, Tensor]:
        """Return the state with the new φ, and the size of the meta-gradient."""
        assert state.outer is not None

        def moved(phi: Tensors, slope: Tensors, outer: Any) -> Any:
            total = self.meta_totals[phase]
            new = move_phi(self.problem, self.engine, phi, slope, outer, phase, total)
            return *new, norm(slope.values())

        gradient = self.problem.broadcast(gradient)
        phi, outer, size = self.problem.each(moved)(state.phi, gradient, state.outer)
        return state._replace(phi=phi, outer=outer), size

    def _choose(self, ok: Tensor, new: Any, old: Any) -> Any:
        return guards.choose(ok, new, old, self.problem.each)

    def _measured(self, meter: Meter, losses: StepLosses, size: Tensor | None) -> Meter:
        """Add a segment's losses to the sums; what was not measured does not count."""
        measured = size is not None
        if size is None:
            size = torch.zeros_like(losses.meta_task)

        def added(meter: Meter, losses: StepLosses, size: Tensor) -> Meter:
            steps = len(losses.inner)
            seen = torch.isfinite(losses.meta_task)
            nothing = torch.zeros_like(losses.meta_task)
            judged = torch.where(seen, losses.meta_task, nothing)
            values = torch.stack([losses.inner.sum(), losses.train_task.sum(), judged, size])
            ones = torch.ones_like(nothing)
            counts = torch.stack([ones * steps, ones * steps, seen.to(ones.dtype), ones * measured])
            return Meter(
                meter.sums + values.to(meter.sums.dtype),
                meter.counts + counts.to(meter.counts.dtype),
            )

        return self.problem.each(added)(meter, losses, size)


def move_phi(
    problem: InnerProblem,
    engine: OuterRule,
    phi: Tensors,
    gradient: Tensors,
    outer: Any,
    phase: str,
    total: int,
) -> tuple[Tensors, Any]:
    """Return φ and the outer rule's state after one meta-step; frozen parameters stay."""
    fixed = problem.fixed_phi
    if fixed:
        gradient = {n: torch.zeros_like(g) if n in fixed else g for n, g in gradient.items()}
    moved, outer = engine.outer_step(phi, gradient, outer, phase=phase, total=total)
    return {name: phi[name] if name in fixed else value for name, value in moved.items()}, outer


def waits(schedule: Schedule, plan: Plan) -> bool:
    """Return whether the steps of a plan are judged by the next training batch."""
    # Nothing follows an offline meta-step, which ends with a reset: other rows judge it.
    return schedule.meta_batch is MetaBatch.next and plan.phase == "train"


def _checked(
    guard: guards.GuardState, old: Tensors, new: Tensors, losses: Tensor, others: list[Tensor]
) -> tuple[Tensor, guards.GuardState]:
    return guards.check(guard, old, new, losses=losses, others=others)


def floats(tree: Any) -> list[Tensor]:
    """Return the floating-point tensors of a pytree."""
    leaves = pytree.tree_leaves(tree)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]
