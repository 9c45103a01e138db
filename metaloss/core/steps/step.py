"""The training step: the only place where θ and φ are changed.

The same code is used offline and online, because the schedule only makes plans, and for one or many
runs, because a problem may be stacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.contracts import MetaBatch, Plan, Schedule
from metaloss.core.steps import averages
from metaloss.core.steps import guard as guards
from metaloss.core.steps import ledger as ledgers
from metaloss.core.steps.anchor import Anchor
from metaloss.core.steps.move_phi import MetaStepped, move_phi
from metaloss.core.steps.reweighted import reweighted_step
from metaloss.core.steps.state import Meter, Pending, TrainState, added
from metaloss.inner.problem import Forward, InnerProblem
from metaloss.inner.steps import take_steps
from metaloss.meta_optimizers.engine import Engine, Rule
from metaloss.types import Batch, InnerState, MetaPass, MetaPoint, StepLosses, Tensors, Window


class Tried(NamedTuple):
    """The state after a segment if it is good, and whether it is; None: it was not checked."""

    new: TrainState
    ok: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Step:
    """``(state, window, plan) -> state``: a pure function of tensors.

    Attributes:
        problem: The functions of an inner step.
        engine: The engine.
        schedule: Determines whether the next batch is the meta-batch.
        guarded: Whether steps are checked.
        meta_totals: The number of meta-steps of each phase, for ``meta_optimizer.lr_schedule``.
        decays: Those of the moving averages.
    """

    problem: InnerProblem
    engine: Engine
    schedule: Schedule
    guarded: bool
    meta_totals: dict[str, int]
    decays: averages.Decays

    @property
    def compile_seconds(self) -> float:
        """Seconds that were spent on compiling so far."""
        return 0.0

    @property
    def plain(self) -> Step:
        """The step without any compilation."""
        return self

    def on(self, problem: InnerProblem) -> Step:
        """Return the same step on another problem."""
        return replace(self, problem=problem)

    def __call__(self, state: TrainState, window: Window, plan: Plan) -> TrainState:
        """Return the state after the plan's steps; a bad segment changes nothing but the guard."""
        return self.kept(state, self.tried(state, window, plan))

    def tried(self, state: TrainState, window: Window, plan: Plan) -> Tried:
        """Take the plan's steps and check them."""
        window = ledgers.recalled(self.problem, state.ledger, window)
        new, losses, size, notes = self._take(state, window, plan)
        new = new._replace(meter=self._measured(state, losses, size))
        moved = None if size is None else torch.ones_like(losses.meta_task, dtype=torch.bool)
        if state.pending is not None:
            moved = state.pending.passed
        new = self._averaged(new, plan, moved)
        if plan.phase != "train":
            notes = None  # the network begins again with each meta-step
        if not self.guarded:
            every = torch.ones_like(losses.meta_task, dtype=torch.bool)
            return Tried(new._replace(ledger=self._noted(state.ledger, window, notes, every)), None)
        others = [] if new.phi is state.phi else floats((new.phi, new.rule))
        ok, memory = self.problem.broadcast(
            self.problem.vmap_members(guards.check)(
                state.guard, state.inner.params, new.inner.params, losses.train_task, others
            )
        )
        pending = new.pending and new.pending._replace(passed=ok)
        ledger = self._noted(state.ledger, window, notes, ok)
        return Tried(new._replace(pending=pending, guard=memory, ledger=ledger), ok)

    def kept(self, state: TrainState, tried: Tried) -> TrainState:
        """Return the new state if it is good; else the old one, with the guard's memory of it."""
        new, ok = tried
        if ok is None:
            return new
        inner, phi, rule, meter, means = self._choose(
            ok,
            (new.inner, new.phi, new.rule, new.meter, new.averages),
            (state.inner, state.phi, state.rule, state.meter, state.averages),
        )
        return new._replace(inner=inner, phi=phi, rule=rule, meter=meter, averages=means)

    def _averaged(self, state: TrainState, plan: Plan, moved: Tensor | None) -> TrainState:
        if state.averages is None or plan.phase != "train":
            return state
        update = partial(averages.updated, decays=self.decays, steps=plan.unroll)
        given: tuple[Any, ...] = (state.averages, state.inner, state.phi)
        given += () if moved is None else (moved,)
        return state._replace(averages=self.problem.vmap_members(update)(*given))

    def _noted(
        self, ledger: Tensor | None, window: Window, notes: Tensor | None, ok: Tensor
    ) -> Tensor | None:
        """Return the ledger with the notes on the window's rows, if ok."""
        if ledger is None or notes is None or window.rows is None:
            return ledger
        decay = getattr(self.problem.loss, "recalls", 0.0)
        written = self.problem.vmap_members(partial(ledgers.updated, decay=decay))
        after: Tensor = written(ledger, window.rows, notes, ok)
        return after

    def _take(
        self, state: TrainState, window: Window, plan: Plan
    ) -> tuple[TrainState, StepLosses, Tensor | None, Tensor | None]:
        """Take the steps, and a meta-step if the plan has one.

        Returns:
            The state, the losses, the norm of the meta-gradient, notes for the ledger.
        """
        size = meta_task = forward = None
        if state.pending is not None:
            # The meta-batch of the last steps is the batch of the next one: one forward pass for
            # both.
            forward = self.problem.forward(state.inner, window.batches[0], window.keys[0])
            state, meta_task, size = self._pending_meta_step(state, window, forward, plan.phase)
        if plan.meta_step and not waits(self.schedule, plan):
            assert state.rule is not None
            judged_on = [(window.meta_batch, window.meta_key)] * plan.unroll
            window = window._replace(points=points_of(self.schedule, judged_on))
            total = self.meta_totals[plan.phase]
            given = (self.engine, state.phi, state.inner, state.rule, window)
            stepped = meta_step(self.problem, *given, plan.phase, total, state.anchor)
            inner, phi, rule, losses, size, notes = stepped
            return state._replace(inner=inner, phi=phi, rule=rule), losses, size, notes
        keeps = partial(self.engine.keeps, unroll=plan.unroll)
        taken = take_steps(self.problem, state.phi, state.inner, window.steps, keeps, forward)
        state, losses = state._replace(inner=taken.state), taken.losses
        if plan.meta_step:
            passed = torch.ones_like(losses.meta_task, dtype=torch.bool)
            state = state._replace(pending=Pending(tuple(taken.records), passed))
        if meta_task is not None:
            losses = losses._replace(meta_task=meta_task)
        return state, losses, size, taken.notes

    def _pending_meta_step(
        self, state: TrainState, window: Window, forward: Forward, phase: str
    ) -> tuple[TrainState, Tensor, Tensor]:
        """Compute the task loss of the last steps on the next batch, with that step's dropout mask.

        ``forward`` is the forward pass over that batch, which its own step uses too.
        """
        pending, batch, key = state.pending, window.batches[0], window.keys[0]
        assert pending is not None
        adjoint, meta_task = self.problem.task_gradient(state.inner, batch, key, forward)
        # Of the weights after k steps, the next training batch is that of step k.
        points = points_of(self.schedule, [(one.batch, one.key) for one in pending.steps])
        gradient = self.engine.gradient_back(
            self.problem,
            state.phi,
            pending.steps,
            MetaPass(batch, key, adjoint, state.inner.buffers, points),
        )
        given = (state.phi, gradient, state.rule, phase, self.meta_totals[phase], state.anchor)
        phi, rule, size = move_phi(self.problem, self.engine, *given)
        phi, rule = self._choose(pending.passed, (phi, rule), (state.phi, state.rule))
        return state._replace(phi=phi, rule=rule, pending=None), meta_task, size

    def _choose(self, ok: Tensor, new: Any, old: Any) -> Any:
        return guards.choose(ok, new, old, self.problem.vmap_members)

    def _measured(self, state: TrainState, losses: StepLosses, size: Tensor | None) -> Meter:
        """Add the losses of a segment to the sums, without NaN."""
        if size is None:
            size = torch.zeros_like(losses.meta_task)
            moves = torch.zeros_like(losses.meta_task, dtype=torch.bool)
        else:
            assert state.rule is not None
            moves = state.rule.shrink != 0  # else φ is frozen: there was no meta-step
            meta_task = torch.where(moves, losses.meta_task, float("nan"))
            losses = losses._replace(meta_task=meta_task)
        return self.problem.vmap_members(added)(state.meter, losses, size, moves)


def meta_step(
    problem: InnerProblem,
    engine: Engine,
    phi: Tensors,
    inner: InnerState,
    rule: Any,
    window: Window,
    phase: str,
    total: int,
    anchor: Anchor | None = None,
) -> MetaStepped:
    """Take the K inner steps of a window, then a meta-step by the gradient through them."""
    if engine.rule is Rule.l2rw:
        return reweighted_step(problem, engine, phi, inner, rule, window)
    result = engine.meta_gradient(problem, phi, inner, window)
    phi, rule, size = move_phi(problem, engine, phi, result.gradient, rule, phase, total, anchor)
    return MetaStepped(result.state, phi, rule, result.losses, size, result.notes)


def points_of(
    schedule: Schedule, judged_on: Sequence[tuple[Batch, Tensor]]
) -> tuple[MetaPoint, ...]:
    """Return the earlier places of an unroll where the task loss is computed as well.

    ``judged_on`` has a meta-batch and its dropout key for the weights before each of the K steps.
    """
    found = schedule.judged(len(judged_on))
    return tuple(MetaPoint(after, weight, *judged_on[after]) for after, weight in found)


def waits(schedule: Schedule, plan: Plan) -> bool:
    """Return whether the meta-batch of a plan is the next training batch."""
    # After an offline meta-step the weights are reset, so that no batch follows.
    return schedule.meta_batch is MetaBatch.next and plan.phase == "train"


def floats(tree: Any) -> list[Tensor]:
    """Return the floating-point tensors of a pytree."""
    leaves = pytree.tree_leaves(tree)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]
