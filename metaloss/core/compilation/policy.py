"""Decides before step 0 whether the steps of a run are compiled."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from metaloss.config import Compile, RunConfig
from metaloss.contracts import Schedule
from metaloss.core.compilation.program import Compiled
from metaloss.errors import MetalossError
from metaloss.inner.dispatch import dispatch_kept
from metaloss.inner.keys import key_tensor, sampled_count
from metaloss.inner.problem import InnerProblem
from metaloss.inner.sharded import ShardedProblem
from metaloss.meta_optimizers.engine import Engine
from metaloss.types import Batch, InnerState

_LOGGER = logging.getLogger(__name__)

# Compiling takes one to two minutes and saves between a fifth of the time (ResNet-18) and two
# thirds (an MLP). It is worthwhile for runs that take this many seconds without it.
WORTH_SECONDS = 300.0
# The shortest time of a step in seconds (a plain one, and one with a meta-step), and operations per
# second. These are rough and do not depend on the machine, so that the same run is compiled on all
# machines or on none.
_LEAST_SECONDS = {"cpu": (1e-3, 8e-3), "cuda": (2e-3, 2e-2)}
_RATE = {"cpu": 6e10, "cuda": 2e13}
# In forward passes of the model: a plain step, and a step with a meta-step.
_PASSES = (3, 9)


def choose(
    config: RunConfig,
    problem: InnerProblem,
    schedule: Schedule,
    engine: Engine,
    inner: InnerState,
    batch: Batch,
) -> Compile:
    """Return ``on``, ``trace`` or ``off`` for a run, whose ``seeds`` are in one program.

    A step is traced at the state ``inner``, on ``batch``.

    Raises:
        MetalossError: If ``compile=on`` or ``compile=trace`` is not possible.
    """
    if config.compile is Compile.off:
        return Compile.off
    asked = f"compile={config.compile.value}"
    if isinstance(problem, ShardedProblem):
        if config.compile is Compile.auto:
            return Compile.off  # small models wait for each other, whatever they run
        if config.compile is Compile.on:
            # PyTorch's compiler fails to write a loop over the integers of such a step.
            raise MetalossError(
                f"{asked}: a run in several processes cannot be compiled: "
                "use compile=trace or compile=off"
            )
        if uneven := _uneven(config, problem, engine):
            raise MetalossError(f"{asked}: {uneven}: use another size or compile=off")
    against = partial(obstacle, problem=problem, engine=engine, inner=inner, batch=batch)
    if config.compile is Compile.auto:
        operations = config.seeds * _operations(problem, inner, batch)
        device = batch.targets.device.type
        seconds = expected_seconds(config.steps, operations, schedule, device, enough=WORTH_SECONDS)
        worth = seconds >= WORTH_SECONDS
        reason = against(Compile.on, learns=schedule.learns) if worth else None
        if reason:
            _LOGGER.warning("compile=auto: this long run is not compiled: %s", reason)
        return Compile.on if worth and not reason else Compile.off
    if reason := against(config.compile, learns=schedule.learns):
        raise MetalossError(f"{asked}: {reason}: use compile=off")
    return config.compile


def expected_seconds(
    steps: int,
    operations: float,
    schedule: Schedule,
    device: str = "cpu",
    *,
    enough: float = float("inf"),
) -> float:
    """Return roughly how many seconds a run takes without compilation.

    ``operations`` are the floating-point operations of a forward pass over a batch. The count ends
    at ``enough`` seconds.
    """
    plain, learning = (
        max(least, passes * operations / _RATE[device])
        for least, passes in zip(_LEAST_SECONDS[device], _PASSES, strict=True)
    )
    seconds = 0.0
    for plan in schedule.plans(steps):
        seconds += plan.unroll * (learning if plan.meta_step else plain)
        if seconds >= enough:
            break
    return seconds


def _uneven(config: RunConfig, problem: ShardedProblem, engine: Engine) -> str | None:
    """Return which batch is not shared evenly; None if all are.

    Programs of processes with as many rows each are the same, and so is the order in which they
    exchange values.
    """
    size = problem.ranks.size
    shares = getattr(engine, "rows", 1.0), problem.judge_rows
    for name, total, share in (
        ("batch_size", config.batch_size, shares[0]),
        ("meta_batch_size", config.meta_batch_size, shares[1]),
    ):
        counts = {total, sampled_count(share, total)}
        if any(count % size for count in counts):
            rows = " and ".join(str(count) for count in sorted(counts))
            return f"the {rows} rows of {name} are no multiple of {size} processes"
    return None


@torch.no_grad()
def _operations(problem: InnerProblem, inner: InnerState, batch: Batch) -> float:
    # In train mode, in which a model may draw random numbers.
    key = key_tensor(0, "probe", device=batch.targets.device)
    with FlopCounterMode(display=False) as counter:
        problem.predict(inner.params, inner.buffers, batch, key)
    return float(counter.get_total_flops())


def obstacle(
    kind: Compile,
    problem: InnerProblem,
    engine: Engine,
    inner: InnerState,
    batch: Batch,
    *,
    learns: bool,
) -> str | None:
    """Return why steps cannot be compiled; None if they can. ``trace`` needs no compiler.

    A step is traced at the state ``inner``, on ``batch``. If it ``learns``, there are meta-steps.
    """
    if learns and not engine.compiles:
        return "only the engines mixed and finite_difference can be compiled"
    if problem.model.foreign_randomness:
        return "the model draws random numbers outside of nn.Dropout"
    # Trace a step with fake tensors. Model and losses have run on values before (`check_outputs`,
    # `LearnerStep.check`), so an error comes from an operation that needs values, such as a branch,
    # a mask or numpy. `compile=on` and `trace` raise an error, `auto` warns and runs eagerly.
    forms = FakeTensorMode(allow_non_fake_inputs=True)
    phi, key = dict(problem.loss.named_parameters()), torch.zeros((), dtype=torch.int64)
    given = (phi, inner, batch, key.to(batch.targets.device))
    try:
        with dispatch_kept(), forms:
            problem.step(*pytree.tree_map_only(Tensor, forms.from_tensor, given))
    except (RuntimeError, TypeError, NotImplementedError) as error:
        cause = getattr(error, "func", None) or str(error).strip().split("\n")[0]
        return f"the model or a loss depends on values while it is traced, in {cause}"
    return _no_compiler(batch.targets.device) if kind is Compile.on else None


def without_compiler(config: RunConfig) -> RunConfig:
    """Return the config of a resumed run, with ``compile=off`` if nothing can be compiled here.

    The run may have been moved to another machine.
    """
    device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    if config.compile is not Compile.on or not (reason := _no_compiler(torch.device(device))):
        return config
    _LOGGER.warning("compile=on: the run continues without compilation: %s", reason)
    return replace(config, compile=Compile.off)


@lru_cache
def _no_compiler(device: torch.device) -> str | None:
    """Return why nothing can be compiled on this machine; None if compilation works.

    A small function is compiled. This needs a C++ compiler, Python's headers and a cache folder.
    """
    try:
        Compiled(torch.neg)(torch.zeros(2, device=device))
    except Exception as error:  # many types of errors are possible
        error = error.__cause__ if isinstance(error.__cause__, Exception) else error
        cause = str(error).strip().split("\n")[0] or type(error).__name__
        return f"PyTorch's compiler does not work here ({cause})"
    return None
