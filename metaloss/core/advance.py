"""One segment of a run: what a plan asks for, done to the state. The only place where θ or φ moves.

The same code serves offline and online, because a schedule only decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.contracts import MetaBatch, Plan, Progress, Schedule
from metaloss.core import guard as guards
from metaloss.core.batches import BatchStream
from metaloss.core.state import Meter, Pending, TrainState
from metaloss.inner.keys import key_tensor
from metaloss.inner.problem import InnerProblem
from metaloss.meta_optimizers.outer import OuterRule
from metaloss.types import InnerState, StepLosses, Tensors, Window


@dataclass(frozen=True, kw_only=True)
class Advance:
    """``(state, plan, progress) -> state``, without a host sync.

    Attributes:
        problem: The functions of an inner step.
        engine: How φ moves.
        schedule: Where the meta-batches come from.
        streams: Training batches by phase, meta-batches as ``"meta/" + phase``.
        fresh: Fresh θ, buffers and optimizer state, by phase and number.
        seed: The run's seed.
        device: Where everything lives.
        guarded: Whether steps are checked.
        constant_loss: Task loss of the best constant prediction.
        meta_totals: Meta-steps of each phase, for the outer rate's schedule.
    """

    problem: InnerProblem
    engine: OuterRule
    schedule: Schedule
    streams: dict[str, BatchStream]
    fresh: Callable[[str, int], InnerState]
    seed: int
    device: torch.device
    guarded: bool
    constant_loss: float
    meta_totals: dict[str, int]

    def __call__(self, state: TrainState, plan: Plan, progress: Progress) -> TrainState:
        """Return the state after the plan's steps; a bad segment changes nothing but the guard."""
        number = progress.offline if plan.phase == "offline" else progress.train
        if plan.reset:
            state = state._replace(inner=self.fresh(plan.phase, number), pending=None)
            if plan.phase == "train" and state.outer is not None:
                state = state._replace(outer=self.engine.outer_init(state.phi))
        first = number * plan.unroll if plan.phase == "offline" else number
        window = self._window(plan, first, number)
        new, losses, norm = self._take(state, plan, window, first)
        new = new._replace(meter=_measured(state.meter, losses, norm))
        if not self.guarded:
            return new
        ok, memory = guards.check(
            state.guard,
            state.inner.params,
            new.inner.params,
            losses=losses.train_task,
            others=[] if new.phi is state.phi else _numbers((new.phi, new.outer)),
            constant_loss=self.constant_loss,
        )
        kept = guards.choose(
            ok,
            (new.inner, new.phi, new.outer, new.meter),
            (state.inner, state.phi, state.outer, state.meter),
        )
        waits = new.pending and new.pending._replace(taken=ok)
        return TrainState(*kept[:3], pending=waits, guard=memory, meter=kept[3])

    def _take(
        self, state: TrainState, plan: Plan, window: Window, first: int
    ) -> tuple[TrainState, StepLosses, Tensor | None]:
        """Take the steps, and move φ if the plan says so."""
        waits = self._waits(plan)
        norm = judged = None
        if state.pending is not None:
            state, judged, norm = self._judge_pending(state, window, plan)
        if plan.meta_step and not waits:
            result = self.engine.meta_gradient(self.problem, state.phi, state.inner, window)
            state = self._move_phi(state, result.gradient, plan.phase)
            norm = _norm(result.gradient)
            return state._replace(inner=result.state), result.losses, norm
        start, inner, task = state.inner, [], []
        for batch, key in zip(window.batches, window.keys, strict=True):
            after, learned, judged_here = self.problem.step(state.phi, state.inner, batch, key)
            state = state._replace(inner=after)
            inner.append(learned)
            task.append(judged_here)
        if plan.meta_step:
            state = state._replace(pending=Pending(start, first, plan.unroll, _true(self.device)))
        unseen = torch.full((), float("nan"), device=self.device)
        losses = StepLosses(
            torch.stack(inner), torch.stack(task), unseen if judged is None else judged
        )
        return state, losses, norm

    def _judge_pending(
        self, state: TrainState, window: Window, plan: Plan
    ) -> tuple[TrainState, Tensor, Tensor]:
        """Let the next training batch, with the dropout mask of its own step, judge the last ones.

        The steps are replayed from where they began: exact for every engine. Their end is known
        already, so that only φ moves here.
        """
        pending = state.pending
        assert pending is not None
        numbers = range(pending.first, pending.first + pending.length)
        replay = Window(
            tuple(self.streams[plan.phase][number] for number in numbers),
            tuple(self._key(plan.phase, number) for number in numbers),
            window.batches[0],
            window.keys[0],
        )
        result = self.engine.meta_gradient(self.problem, state.phi, pending.start, replay)
        moved = self._move_phi(state, result.gradient, plan.phase)
        phi, outer = guards.choose(
            pending.taken, (moved.phi, moved.outer), (state.phi, state.outer)
        )
        state = state._replace(phi=phi, outer=outer, pending=None)
        return state, result.losses.meta_task, _norm(result.gradient)

    def _move_phi(self, state: TrainState, gradient: Tensors, phase: str) -> TrainState:
        assert state.outer is not None
        phi, outer = self.engine.outer_step(
            state.phi, gradient, state.outer, phase=phase, total=self.meta_totals[phase]
        )
        return state._replace(phi=phi, outer=outer)

    def _window(self, plan: Plan, first: int, number: int) -> Window:
        numbers = range(first, first + plan.unroll)
        batches = tuple(self.streams[plan.phase][k] for k in numbers)
        keys = tuple(self._key(plan.phase, k) for k in numbers)
        if not plan.meta_step or self._waits(plan):
            return Window(batches, keys, batches[0], keys[0])
        meta = f"meta/{plan.phase}"
        return Window(batches, keys, self.streams[meta][number], self._key(meta, number))

    def _waits(self, plan: Plan) -> bool:
        # Nothing follows an offline meta-step, which ends with a reset: other rows judge it.
        return self.schedule.meta_batch is MetaBatch.next and plan.phase == "train"

    def _key(self, purpose: str, number: int) -> Tensor:
        return key_tensor(self.seed, f"dropout/{purpose}", number, device=self.device)


def _measured(meter: Meter, losses: StepLosses, norm: Tensor | None) -> Meter:
    """Add a segment's losses to the sums; what was not measured does not count."""
    steps = len(losses.inner)
    unmeasured = losses.meta_task.new_zeros(())
    seen = torch.isfinite(losses.meta_task)
    values = torch.stack(
        [
            losses.inner.sum(),
            losses.train_task.sum(),
            torch.where(seen, losses.meta_task, unmeasured),
            unmeasured if norm is None else norm,
        ]
    )
    ones = torch.ones_like(unmeasured)
    counts = torch.stack(
        [ones * steps, ones * steps, seen.to(ones.dtype), ones * (norm is not None)]
    )
    return Meter(
        meter.sums + values.to(meter.sums.dtype), meter.counts + counts.to(meter.counts.dtype)
    )


def _numbers(tree: Any) -> list[Tensor]:
    leaves = pytree.tree_leaves(tree)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _true(device: torch.device) -> Tensor:
    return torch.ones((), dtype=torch.bool, device=device)


def _norm(gradient: Tensors) -> Tensor:
    return torch.stack(torch._foreach_norm(list(gradient.values()))).norm()
