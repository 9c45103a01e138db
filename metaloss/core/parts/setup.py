"""From a config to the objects of a run."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from metaloss import registry
from metaloss.config import Compile, Precision, RunConfig, Selected
from metaloss.contracts import Schedule, Start, Task, TaskDependent
from metaloss.core.batches.streaming import placed
from metaloss.core.batches.streams import in_one_launch
from metaloss.core.compilation.policy import choose
from metaloss.core.distributed.launch import own_device
from metaloss.core.parts.anchoring import anchor_at
from metaloss.core.parts.checks import check_fit, check_kinds, check_outputs, check_passes
from metaloss.core.parts.jury import check_metric, with_jury
from metaloss.core.parts.numerics import numerics
from metaloss.core.parts.replayed import Replayed, replayed, with_recorded_loss
from metaloss.core.parts.row_streams import first_window, own_rows, streams_of
from metaloss.core.parts.rows import fresh_ledger, guarded_loss, weights_of_classes, with_ledger
from metaloss.core.parts.runtime import check_deterministic, resolve_device, seeded
from metaloss.core.parts.step_of import step_of
from metaloss.core.parts.weights import Weights
from metaloss.core.parts.wrapped import refuse_wrapped
from metaloss.core.steps.advance import Advance
from metaloss.core.steps.averages import begun
from metaloss.core.steps.guard import GuardState
from metaloss.core.steps.state import Meter, TrainState
from metaloss.data.augment import CropFlipCutout
from metaloss.data.targets.kinds import check_task
from metaloss.errors import MetalossError
from metaloss.inner.model.functional import FunctionalModel
from metaloss.inner.problem import InnerProblem
from metaloss.inner.processes.ranks import ALONE, Ranks
from metaloss.inner.sharded import ShardedProblem
from metaloss.losses.base import LearnedLoss, phi_of
from metaloss.meta_optimizers.engine import Engine
from metaloss.meta_optimizers.fitting import fitted
from metaloss.meta_optimizers.mixed import Mixed
from metaloss.meta_optimizers.search import SearchRule
from metaloss.schedules.offline import Offline
from metaloss.schedules.searched import Searched
from metaloss.starts.keep import Keep
from metaloss.types import InnerState, Tensors


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The parts of a run, which do not change during it.

    Attributes:
        config: The config of the run; ``compile`` is never ``auto``.
        ranks: The processes that train together.
        search: The search that finds the loss before training; None without one.
        found: The result of the search.
        replayed: The recording that φ follows; None without one.
    """

    config: RunConfig
    task: Task
    model: nn.Module
    loss: LearnedLoss
    start: Start
    schedule: Schedule
    engine: Engine
    problem: InnerProblem
    advance: Advance
    device: torch.device
    ranks: Ranks = ALONE
    search: SearchRule | None = None
    found: dict[str, Any] | None = None
    replayed: Replayed | None = None

    @property
    def start_total(self) -> int:
        """The number of steps of φ's start: 0 for a loss without φ or with a given φ."""
        fits = any(p.requires_grad for p in self.loss.parameters()) and not self.loss.given
        return self.start.total if fits else 0

    def numerics(self) -> AbstractContextManager[None]:
        """Return the context with the numerical settings of the run."""
        return numerics(deterministic=self.config.deterministic, tf32=self.config.tf32)

    def anchored(self, state: TrainState) -> TrainState:
        """Return the state with its φ as the anchor, if the engine has one."""
        if not (self.engine.anchor and self.schedule.learns and state.phi):
            return state
        given = self.start, self.task.outputs, self.config.seed
        return state._replace(anchor=anchor_at(self.problem, state.phi, *given))

    def state(self, inner: InnerState, phi: Tensors) -> TrainState:
        """Return the state at the beginning of a phase."""
        # φ's start is computed, with different rounding on another machine.
        inner, phi = self.problem.broadcast((inner, phi))
        return TrainState(
            inner,
            phi,
            self.engine.rule_init(phi) if self.schedule.learns else None,
            None,
            GuardState.fresh(self.device, guarded_loss(self.task)),
            Meter.fresh(self.device),
            self.problem.notes
            and fresh_ledger(self.advance.rows, inner.params, self.loss, self.task),
            begun(self.advance.step.plain.decays, inner, phi),
        )


def prepare(
    config: RunConfig,
    *,
    task: Task | None = None,
    model: nn.Module | None = None,
    loss: LearnedLoss | None = None,
    ranks: Ranks = ALONE,
) -> Setup:
    """Build the parts that a config names, or use the user's objects instead.

    With ``seeds=N``, this is the run of seed ``config.seed``. The ``ranks`` must not communicate
    here.

    Raises:
        MetalossError: If parts do not fit each other; nothing is written before.
    """
    check_kinds(config, task, model, loss)
    device = resolve_device(own_device(config.device, ranks))
    if config.deterministic:
        check_deterministic(device)
    if task is None:
        task = registry.get("task", config.task.name).build(config.task.options).build(config.seed)
    check_task(task)
    search = config.meta_optimizer.options
    search = search if isinstance(search, SearchRule) else None
    schedule = _schedule(config, search)
    task = placed(with_jury(task, schedule, config.seed), device)
    if (follows := replayed(config, task, loss)) is not None:
        config, loss = with_recorded_loss(config, follows, task), follows.schedule.loss
    loss = build_loss(config.loss, task, config.seed) if loss is None else copy.deepcopy(loss)
    check_fit(loss, task, schedule, config)
    weights = _weights(config, task, model)
    module = weights("train", 0)
    refuse_wrapped(module)
    if schedule.offline_total():
        weights("offline", 0)  # raises before anything is written if the model cannot be reset
    loss.to(device)
    autocast = torch.bfloat16 if config.precision is Precision.bf16 else None
    several = ranks.size > 1
    functional = FunctionalModel(
        module, autocast=autocast, channels_last=config.channels_last, shared=several
    ).to(device)
    optimizer = config.inner.options
    problem = InnerProblem(
        model=functional,
        loss=loss,
        task_loss=task.task_loss,
        optimizer=optimizer,
        judge_rows=schedule.judge_rows,
        class_weights=weights_of_classes(task, device),
    )
    problem = with_ledger(problem, task, config)
    check_outputs(functional, loss, task, device)

    def fresh(phase: str, number: int) -> InnerState:
        params, buffers = functional.state(weights(phase, number), device)
        return InnerState(params, buffers, optimizer.init(params))

    engine = Mixed() if search is not None else config.meta_optimizer.options
    streams = streams_of(config, task, schedule, device)
    first = fresh("train", 0)
    check_metric(task, functional, first)
    batch, meta_batch = (streams[name][0] for name in ("train", "meta/train"))
    check_passes(functional, first, own_rows(batch, ranks), own_rows(meta_batch, ranks))
    if schedule.learns and search is None:
        phi = phi_of(loss)
        problem = fitted(
            problem, engine, phi, first, first_window(schedule, config, batch, meta_batch)
        )
        if engine.anchor and phi:
            anchor_at(problem, phi, config.start.options, task.outputs, config.seed)
    if several:
        problem = ShardedProblem.of(problem, ranks=ranks)
    compiles = choose(config, problem, schedule, engine, first, batch)
    # A program must be a pure function; only our own augmentation is known to be one.
    crops = task.augment
    if type(crops) is CropFlipCutout and compiles is Compile.on and device.type == "cuda":
        quick = replace(task, augment=in_one_launch(crops))
        streams = streams_of(config, quick, schedule, device)
    advance = Advance(
        step=step_of(config, compiles, problem, engine, schedule),
        schedule=schedule,
        streams=streams,
        fresh=fresh,
        seed=config.seed,
        device=device,
        steps=config.steps,
        replayed=None if follows is None else follows.schedule.to(device),
    )
    return Setup(
        # Decided before step 0 and stored, so that a resumed run is compiled in the same way.
        config=replace(config, compile=compiles),
        task=task,
        model=module,
        loss=loss,
        # The loss that a search or a run has found needs no start.
        start=Keep() if search is not None or follows else config.start.options,
        schedule=schedule,
        engine=engine,
        problem=problem,
        advance=advance,
        device=device,
        ranks=ranks,
        search=search,
        replayed=follows,
    )


def _schedule(config: RunConfig, search: SearchRule | None) -> Schedule:
    schedule: Schedule = config.schedule.options
    if search is None:
        return schedule
    if not isinstance(schedule, Offline):
        raise MetalossError(
            f"meta_optimizer={config.meta_optimizer.name} searches before training: it needs "
            f"schedule=offline, not {config.schedule.name}"
        )
    for option, default in (("judge_rows", 1.0), ("judge_at", [])):
        if (value := getattr(schedule, option)) != default:
            raise MetalossError(
                f"schedule.{option}={value}: meta_optimizer={config.meta_optimizer.name} searches "
                "without meta-batches: leave it out"
            )
    rows, jury = schedule.meta_batch, schedule.jury
    return Searched(generations=search.generations, meta_batch=rows, jury=jury)


def build_loss(chosen: Selected, task: Task, seed: int) -> LearnedLoss:
    """Build a loss by name, with parameters drawn from the seed."""
    options = chosen.options
    if isinstance(options, TaskDependent):
        options = options.for_task(task)
    with seeded(seed, "loss"):
        loss = registry.get("loss", chosen.name).build(options, link=task.link)
    # Set it afterwards, because the class of a plugin may not take it as an argument.
    loss.ignore_index = task.ignore_index
    if loss.family is None:
        loss.family = chosen.name
    return loss


def _weights(config: RunConfig, task: Task, model: nn.Module | None) -> Weights:
    if model is not None:
        return Weights.of(model, config.seed)
    part = registry.get("model", config.model.name)
    context: dict[str, Any] = {"input_shape": task.input_shape, "outputs": task.outputs}
    return Weights(build=lambda: part.build(config.model.options, **context), seed=config.seed)
