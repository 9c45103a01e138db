"""Chooses rows, judging rows, period and unroll so that training costs what a user allows."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from metaloss.config import Compile, RunConfig
from metaloss.contracts import Plan, Progress
from metaloss.core.parts.setup import Setup
from metaloss.core.parts.step_of import step_of
from metaloss.core.steps.advance import Advance
from metaloss.core.steps.state import TrainState
from metaloss.errors import MetalossError, UnsupportedError
from metaloss.inner.problem import InnerProblem
from metaloss.losses.base import phi_of
from metaloss.meta_optimizers.engine import Engine, Rule
from metaloss.meta_optimizers.reverse_unroll import ReverseUnroll
from metaloss.meta_optimizers.row_samples import refuse_coupled_rows
from metaloss.schedules.online import Online

SHARES = (1.0, 0.5, 0.25)  # of training rows and of judging rows
SPARSEST = 8  # a longer unroll is shortened before its meta-steps are that many times rarer
LONGEST = 64  # steps from one meta-step to the next, at most
ROUNDS = 7

# (share of rows, unroll) -> seconds of a plain step, and of a window with its meta-step
Measure = Callable[[float, int], tuple[float, float]]


class Choice(NamedTuple):
    """What a budget buys; ``price``: a step's mean time over that of a plain one, as measured."""

    share: float
    period: int
    unroll: int
    price: float


def within_budget(
    config: RunConfig, prepare: Callable[[RunConfig], Setup]
) -> tuple[RunConfig, str | None]:
    """Return the config with what its budget buys in place of the budget, and one line about it.

    Steps are measured on the first batches; their results are dropped. A config without a budget is
    returned as it is. ``prepare`` leads from a config to the parts of a run. Of several processes,
    the first one's measurements count.

    Raises:
        MetalossError: If nothing is that cheap, or options are set that the budget chooses.
    """
    schedule = config.schedule.options
    engine, name = config.meta_optimizer.options, config.meta_optimizer.name
    if not isinstance(schedule, Online) or schedule.budget is None:
        return config, None
    if not isinstance(engine, Engine):
        return config, None  # a search, which `prepare` refuses in this schedule
    asked = f"schedule.budget={schedule.budget:g}"
    if not isinstance(engine, ReverseUnroll):
        raise MetalossError(
            f"{asked}: meta_optimizer={name} needs all rows: use mixed or finite_difference"
        )
    if engine.rows < 1:
        raise MetalossError(f"{asked} chooses meta_optimizer.rows: leave it out")
    if engine.rule is Rule.l2rw:
        raise MetalossError(f"{asked}: meta_optimizer.rule=l2rw has no choice: leave it out")
    config = _with(config, Choice(1.0, schedule.unroll, schedule.unroll, 0.0))
    setup = prepare(config)
    with setup.numerics():
        choice = choose(schedule.budget, schedule.unroll, _shares(setup), _measuring(setup))
    share, period, unroll, price = choice
    said = (
        f"{asked}: rows={share:g}, judge_rows={share:g}, period={period}, unroll={unroll}: "
        f"{price:.2f} plain steps for each, as measured"
    )
    return _with(config, choice), said


def choose(budget: float, unroll: int, shares: tuple[float, ...], measure: Measure) -> Choice:
    """Return the first choice within a budget.

    Rows are reduced first, because two windows differ more than two halves of one window. Then
    meta-steps become rarer, and then unrolls shorter.

    Args:
        budget: The mean time of a step over that of a plain step, > 1.
        unroll: The longest unroll.
        shares: The shares of rows that are possible, descending.
        measure: See `Measure`.

    Raises:
        MetalossError: If nothing is that cheap.

    Example:
        >>> choose(1.5, 4, (1.0, 0.25), lambda share, unroll: (1.0, unroll * (1 + 2 * share)))
        Choice(share=0.25, period=4, unroll=4, price=1.5)
        >>> choose(1.25, 1, (1.0,), lambda share, unroll: (1.0, 3.0))
        Choice(share=1.0, period=8, unroll=1, price=1.25)
    """
    while True:
        for share in shares:
            plain, window = measure(share, unroll)
            more = window / plain - unroll  # what the meta-step costs, in plain steps
            if unroll + more <= budget * unroll:
                return Choice(share, unroll, unroll, 1 + more / unroll)
        period = math.ceil(more / (budget - 1))
        if period <= min(SPARSEST * unroll, LONGEST) or (unroll == 1 and period <= LONGEST):
            return Choice(share, period, unroll, 1 + more / period)
        if unroll == 1:
            raise MetalossError(
                f"schedule.budget={budget:g}: a meta-step costs {more:.2f} plain steps at least: "
                f"expected a budget ≥ {1 + more / LONGEST:.2f}"
            )
        unroll = unroll // 2


def _with(config: RunConfig, choice: Choice) -> RunConfig:
    engine, schedule = config.meta_optimizer, config.schedule
    rows = replace(engine.options, rows=choice.share)
    period = None if choice.period == choice.unroll else choice.period
    spent = replace(
        schedule.options,
        budget=None,
        judge_rows=choice.share,
        period=period,
        unroll=choice.unroll,
    )
    return replace(
        config,
        meta_optimizer=replace(engine, options=rows),
        schedule=replace(schedule, options=spent),
    )


def _shares(setup: Setup) -> tuple[float, ...]:
    """Return the shares of rows that the model and the losses allow."""
    advance, least = setup.advance, min(SHARES)
    window = advance.window(Plan(phase="train", meta_step=True), Progress())
    inner = advance.fresh("train", 0)
    window = window._replace(meta_batch=advance.streams["meta/train"][0])
    phi = phi_of(setup.loss)
    problem = InnerProblem.of(setup.problem, judge_rows=least)
    try:
        refuse_coupled_rows(problem, least, phi, inner, window)
    except UnsupportedError:
        return (1.0,)
    return SHARES


def _measuring(setup: Setup) -> Measure:
    """Return a function that measures steps of the run on its first batches."""
    # Compiling each candidate would take minutes; traced steps have nearly the same ratios.
    kind = Compile.off if setup.config.compile is Compile.off else Compile.trace
    phi = phi_of(setup.loss)

    def seconds(share: float, unroll: int) -> tuple[float, float]:
        choice = Choice(share, unroll, unroll, 0.0)
        config = _with(setup.config, choice)
        schedule, engine = config.schedule.options, config.meta_optimizer.options
        problem = replace(setup.problem, judge_rows=share)
        step = step_of(config, kind, problem, engine, schedule)
        advance = replace(setup.advance, step=step, schedule=schedule)
        state = setup.anchored(setup.state(advance.fresh("train", 0), phi))
        plain, learning = (
            _turns(advance, state, Plan(phase="train", unroll=length, meta_step=meta))
            for length, meta in ((1, False), (unroll, True))
        )
        times = [(next(plain), next(learning)) for _ in range(ROUNDS)]
        # The first turns trace the steps; with `next`, the second ones trace the meta-step.
        found = tuple(statistics.median(one) for one in zip(*times[2:], strict=True))
        # All processes must go on with the same candidate.
        return setup.ranks.same((found[0], found[1]))

    return seconds


def _turns(advance: Advance, state: TrainState, plan: Plan) -> Iterator[float]:
    """Yield the seconds of one segment of training after the other; on the CPU, those computed.

    Where other programs compute too, some turns wait for them longer than they take themselves.
    """
    progress, on_gpu = Progress(), advance.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    while True:
        began = clock()
        state = advance(state, plan, progress)
        if on_gpu:
            torch.cuda.synchronize(advance.device)
        yield clock() - began
        progress = progress.after(plan)
