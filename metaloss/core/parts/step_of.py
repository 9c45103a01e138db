"""The training step of a run, compiled or not."""

from __future__ import annotations

from metaloss.config import Compile, RunConfig
from metaloss.contracts import Schedule
from metaloss.core.steps.averages import Decays
from metaloss.core.steps.compiled import CompiledStep
from metaloss.core.steps.step import Step
from metaloss.inner.problem import InnerProblem
from metaloss.meta_optimizers.engine import Engine


def step_of(
    config: RunConfig, compiles: Compile, problem: InnerProblem, engine: Engine, schedule: Schedule
) -> Step | CompiledStep:
    """Return the training step of a run; ``compiles`` is not ``auto``."""
    step = Step(
        problem=problem,
        engine=engine,
        schedule=schedule,
        guarded=config.guard.name != "off",
        meta_totals={
            "offline": schedule.offline_total(),
            "train": _train_meta_steps(schedule, config.steps),
        },
        decays=Decays(config.ema, engine.ema if schedule.moves_in("train") else 0.0),
    )
    on = compiles is Compile.on
    return step if compiles is Compile.off else CompiledStep(step, compiles=on)


def _train_meta_steps(schedule: Schedule, steps: int) -> int:
    """Return the number of meta-steps in training, for ``meta_optimizer.lr_schedule``."""
    if not schedule.moves_in("train"):
        return 0
    return sum(plan.meta_step for plan in schedule.plans(steps) if plan.phase == "train")
