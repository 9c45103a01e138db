"""The training step of a run, compiled or not."""

from __future__ import annotations

from metaloss.config import Compile, RunConfig
from metaloss.contracts import Schedule
from metaloss.core.steps.averages import Decays
from metaloss.core.steps.compiled import CompiledStep
from metaloss.core.steps.step import Step
from metaloss.inner.optimizers.rates import RateSchedule
from metaloss.inner.problem import InnerProblem
from metaloss.meta_optimizers.engine import Engine


def step_of(
    config: RunConfig, compiles: Compile, problem: InnerProblem, engine: Engine, schedule: Schedule
) -> Step | CompiledStep:
    """Return the training step of a run; ``compiles`` is not ``auto``."""
    # Counted only if η depends on it: all plans of a million steps take more than a second.
    counts = engine.lr_schedule is not RateSchedule.constant and schedule.moves_in("train")
    plans = schedule.plans(config.steps) if counts else ()
    total = sum(plan.meta_step for plan in plans if plan.phase == "train")
    step = Step(
        problem=problem,
        engine=engine,
        schedule=schedule,
        guarded=config.guard.name != "off",
        meta_totals={"offline": schedule.offline_total(), "train": total},
        decays=Decays(config.ema, engine.ema if schedule.moves_in("train") else 0.0),
    )
    on = compiles is Compile.on
    return step if compiles is Compile.off else CompiledStep(step, compiles=on)
