"""How close a meta-gradient from a share of the rows is to that from all rows."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch.nn.functional import cosine_similarity

from metaloss.contracts import Plan, Progress
from metaloss.core.parts.setup import Setup
from metaloss.core.steps import ledger as ledgers
from metaloss.core.steps.state import TrainState
from metaloss.core.steps.step import points_of, waits
from metaloss.inner.problem import InnerProblem
from metaloss.inner.steps import take_steps
from metaloss.meta_optimizers.engine import Engine, Rule
from metaloss.meta_optimizers.reverse_unroll import ReverseUnroll
from metaloss.types import MetaPass, Tensors, Window

NAME = "meta/cosine_to_exact"


def cosine_to_exact(setup: Setup, state: TrainState, progress: Progress) -> dict[str, float]:
    """Return the cosine of the next meta-gradient with the one from all rows, by its name.

    Both are computed on the next batches of the run at its current weights, outside of compiled
    programs. The run itself is not changed: batches and rows are drawn by their numbers.

    Returns:
        Nothing if the run uses all rows, or does not update φ any more.
    """
    engine, problem = setup.engine, setup.problem
    if engine.rule is Rule.l2rw:  # its gradient is that at φ = 0
        state = state._replace(phi={n: torch.zeros_like(v) for n, v in state.phi.items()})
    sampled = isinstance(engine, ReverseUnroll) and engine.rows < 1
    if not (engine.cosine and (sampled or problem.judge_rows < 1)):
        return {}
    plan = _next_meta_step(setup, progress)
    if plan is None:
        return {}
    whole = replace(engine, rows=1.0) if isinstance(engine, ReverseUnroll) else engine
    later = waits(setup.schedule, plan)
    given = state, _window(setup, state, plan, progress, later), later
    found, exact = (
        _flat(_gradient(one, by, *given), one.fixed_phi)
        for one, by in ((problem, engine), (replace(problem, judge_rows=1.0), whole))
    )
    value = float(cosine_similarity(found, exact, dim=0))
    return {NAME: value} if math.isfinite(value) and bool(exact.any()) else {}


def _next_meta_step(setup: Setup, progress: Progress) -> Plan | None:
    while (plan := setup.schedule.plan(progress, setup.config.steps)) is not None:
        if plan.meta_step:
            return plan
        progress = progress.after(plan)
    return None


def _window(setup: Setup, state: TrainState, plan: Plan, progress: Progress, later: bool) -> Window:
    advance = setup.advance
    window = advance.window(plan, progress)
    if later:
        place = "train", progress.train + plan.unroll
        batch = advance.streams[place[0]][place[1]]
        window = window._replace(meta_batch=batch, meta_key=advance.key(*place))
    window = ledgers.recalled(setup.problem, state.ledger, window)
    every = [(window.meta_batch, window.meta_key)] * plan.unroll
    every = list(zip(window.batches, window.keys, strict=True)) if later else every
    return window._replace(points=points_of(setup.schedule, every))


def _gradient(
    problem: InnerProblem, engine: Engine, state: TrainState, window: Window, later: bool
) -> Tensors:
    """Return d(task loss)/dφ; ``later``: as where the meta-batch is the next training batch."""
    if not later:
        return engine.meta_gradient(problem, state.phi, state.inner, window).gradient
    taken = take_steps(problem, state.phi, state.inner, window.steps)
    batch, key = window.meta_batch, window.meta_key
    adjoint, _ = problem.task_gradient(taken.state, batch, key)
    meta_pass = MetaPass(batch, key, adjoint, taken.state.buffers, window.points)
    return engine.gradient_back(problem, state.phi, taken.records, meta_pass)


def _flat(gradient: Tensors, fixed: frozenset[str]) -> torch.Tensor:
    return torch.cat([value.flatten().double() for n, value in gradient.items() if n not in fixed])
