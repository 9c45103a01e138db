"""The steps of a `Learner`, eager or compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metaloss.config import Compile
from metaloss.core.compilation.policy import obstacle
from metaloss.core.compilation.program import Compiled
from metaloss.core.steps import guard as guards
from metaloss.core.steps.compiled import Programs
from metaloss.core.steps.step import floats, meta_step
from metaloss.errors import MetalossError
from metaloss.inner.gradients import norm
from metaloss.inner.problem import InnerProblem
from metaloss.inner.steps import take_steps
from metaloss.meta_optimizers.engine import Engine
from metaloss.types import Batch, InnerState, Tensors, Window


class LearnerLosses(NamedTuple):
    """The losses of a step of a `Learner`, as tensors on the device.

    Attributes:
        inner: (K,), see `metaloss.types.StepLosses`.
        train_task: (K,).
        meta_task: ().
        taken: (), bool: whether the step was taken; None without a guard.
    """

    inner: Tensor
    train_task: Tensor
    meta_task: Tensor
    taken: Tensor | None


# The state, φ and the state of its rule after a step; without a meta-step, those of φ as before.
_Stepped = tuple[InnerState, Tensors, Any, LearnerLosses]


class LearnerStep:
    """A step of a model, and perhaps a meta-step of its loss.

    If it is ``guarded``, steps that are not finite are left out. One step is one compiled program;
    with several steps, each step and each step of the backward pass is one program.
    """

    def __init__(
        self, problem: InnerProblem, engine: Engine, *, guarded: bool, compile: Compile
    ) -> None:
        self._problem, self._engine, self._compile = problem, engine, compile
        step = partial(_step, engine, guarded)
        self._whole: Callable[..., Any] = partial(step, problem)
        self._in_parts = self._whole
        if compile is not Compile.off:
            compiles = compile is Compile.on
            programs = Programs(problem, compiles=compiles)
            self._in_parts = partial(step, replace(problem, programs=programs))
            self._whole = Compiled(self._whole, compiles=compiles)

    def check(self, phi: Tensors, state: InnerState, batch: Batch, key: Tensor) -> None:
        """Raise a MetalossError if the steps are to be compiled, but cannot be."""
        if self._compile is Compile.off:
            return
        # Run it without the compiler first, so that an error in the user's code is reported as
        # such.
        self._problem.step(phi, state, batch, key)
        reason = obstacle(self._compile, self._problem, self._engine, state, batch, learns=True)
        if reason:
            raise MetalossError(f"compile={self._compile.value}: {reason}: use compile=off")

    def __call__(
        self, phi: Tensors, state: InnerState, rule: Any, window: Window, learns: bool
    ) -> _Stepped:
        """Take the steps of the window, and a meta-step if it ``learns``."""
        run = self._in_parts if len(window.batches) > 1 else self._whole
        found: _Stepped = run(phi, state, rule, window, learns)
        return found


def _step(
    engine: Engine,
    guarded: bool,
    problem: InnerProblem,
    phi: Tensors,
    state: InnerState,
    rule: Any,
    window: Window,
    learns: bool,
) -> _Stepped:
    if learns:
        found = meta_step(problem, engine, phi, state, rule, window, "train", 0)
        new, losses = (found.inner, found.phi, found.rule), found.losses
        others = floats((found.phi, found.rule))
    else:
        taken = take_steps(problem, phi, state, window.steps, keeps=lambda _: False)
        new, losses, others = (taken.state, phi, rule), taken.losses, []
    if given := losses.meta_task.shape if learns else losses.train_task.shape[:-1]:
        raise MetalossError(
            f"task_loss returns the shape {tuple(given)}: expected a scalar, such as a mean over "
            "rows"
        )
    if not guarded:
        return *new, LearnerLosses(*losses, None)
    # Buffers may be infinite.
    moved = floats((new[0].params, new[0].optimizer))
    ok = torch.isfinite(norm([*moved, losses.inner, *others]))
    kept = guards.choose(ok, new, (state, phi, rule))
    return *kept, LearnerLosses(*losses, ok)
