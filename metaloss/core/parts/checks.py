"""Checks that the parts of a run fit each other, before anything is written."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from metaloss import registry
from metaloss.config import RunConfig
from metaloss.contracts import MetaBatch, Schedule, Task, TrainOn
from metaloss.core.parts.blame import told
from metaloss.core.parts.custom import CUSTOM
from metaloss.core.parts.wrapped import refuse_wrapped
from metaloss.errors import MetalossError
from metaloss.inner.fields import named
from metaloss.inner.keys import key_tensor
from metaloss.inner.model.functional import FunctionalModel
from metaloss.losses.base import LearnedLoss
from metaloss.meta_optimizers.engine import Engine, Rule
from metaloss.meta_optimizers.search import SearchRule
from metaloss.starts.keep import refuse_loaded
from metaloss.types import Batch, InnerState, Link

# Options of an engine that change a step of φ, and nothing else.
_OF_STEPS = ("rows", "clip", "ema", "anchor", "lr_schedule")


def check_fit(loss: LearnedLoss, task: Task, schedule: Schedule, config: RunConfig) -> None:
    """Raise if the loss or the model does not fit the task, the start or the schedule."""
    if "" not in named(task.train.inputs) and config.model.name != CUSTOM:
        chosen = registry.get("model", config.model.name)
        if chosen.cls.__module__.startswith("metaloss."):
            raise MetalossError(
                f"model={chosen.name}: the task {task.name} has inputs of several tensors "
                f"({', '.join(named(task.train.inputs))}), this model takes one: train your own, "
                "with metaloss.train(..., model=...)"
            )
    if loss.link is not task.link:
        raise MetalossError(
            f"the loss has link={loss.link.name}, the task {task.name} needs link={task.link.name}"
        )
    if loss.link is Link.softmax and loss.ignore_index != task.ignore_index:
        raise MetalossError(
            f"the loss has ignore_index={loss.ignore_index}, the task {task.name} has "
            f"ignore_index={task.ignore_index}: set loss.ignore_index to it"
        )
    _check_l2rw(loss, schedule, config)
    if loss.loaded and config.start.options.discards:
        refuse_loaded(loss, config.start.name)
    if schedule.learns and not any(p.requires_grad for p in loss.parameters()):
        raise MetalossError(
            f"loss={config.loss.name} has no parameters to learn: use schedule=static, or a "
            "learned loss such as loss=mlp"
        )
    searched = isinstance(config.meta_optimizer.options, SearchRule)
    if schedule.learns and not searched and not _moves(schedule, config.steps):
        options = ", ".join(
            f"{field.name}={getattr(schedule, field.name)}"
            for field in dataclasses.fields(schedule)  # type: ignore[arg-type]
            if field.name in ("period", "unroll", "freeze_after")
        )
        raise MetalossError(
            f"steps={config.steps}: the loss would never be updated with "
            f"schedule={config.schedule.name} ({options}): expected a window (period, unroll) that "
            "ends before the last step and freeze_after (with meta_batch=next, a step earlier); or "
            "schedule=static"
        )


def _check_l2rw(loss: LearnedLoss, schedule: Schedule, config: RunConfig) -> None:
    """Raise if rows are weighed anew without the loss, or the schedule, that this needs."""
    engine, linear = config.meta_optimizer.options, getattr(loss, "linear", False)
    fresh = isinstance(engine, Engine) and engine.rule is Rule.l2rw and schedule.learns
    if fresh != linear:
        raise MetalossError(
            "meta_optimizer.rule=l2rw and loss=row_weights loss.linear=true need each other, and "
            "schedule=online: expected all of them, or none"
        )
    if not fresh:
        return
    always = all(
        plan.meta_step and plan.unroll == 1 and plan.phase == "train"
        for plan in schedule.plans(config.steps)
    )
    next_batch = schedule.meta_batch is MetaBatch.next
    if not always or next_batch or schedule.train_on is not TrainOn["train"]:
        raise MetalossError(
            "meta_optimizer.rule=l2rw weighs the training rows at every step: expected "
            "schedule=online with unroll=1, no longer period, freeze_after=1, no offline steps, "
            "train_on=train, and meta_batch=validation or train"
        )
    # There is no step of φ that these could change, and no φ that could stay as it is.
    unused = {"meta_optimizer": (engine, _OF_STEPS), "schedule": (schedule, ("verdict",))}
    for group, (part, names) in unused.items():
        for name in names:
            value, default = (getattr(one, name, None) for one in (part, type(part)))
            if value != default:
                given, wanted = (getattr(one, "name", one) for one in (value, default))
                raise MetalossError(f"{group}.{name}={given} with rule=l2rw: expected {wanted}")


def _moves(schedule: Schedule, steps: int) -> bool:
    """Return whether a plan has a meta-step. With ``meta_batch=next`` it needs a plan after it."""
    waits = False
    for plan in schedule.plans(steps):
        if waits or (plan.meta_step and schedule.meta_batch is not MetaBatch.next):
            return True
        waits = plan.meta_step
    return False


def check_kinds(config: RunConfig, task: object, model: nn.Module | None, loss: object) -> None:
    """Raise if one of the user's objects, or the engine, has the wrong type."""
    wanted = (
        ("task", task, Task, "metaloss.task_from_data(...)"),
        ("loss", loss, LearnedLoss, "a metaloss.losses.LearnedLoss; for a fixed one loss=NAME"),
    )
    for name, value, kind, example in wanted:
        if value is not None and not isinstance(value, kind):
            raise MetalossError(f"{name} is a {type(value).__name__}: expected {example}")
    if model is not None:
        refuse_wrapped(model)
    engine = config.meta_optimizer.options
    if not isinstance(engine, Engine | SearchRule):
        raise MetalossError(
            f"meta_optimizer={config.meta_optimizer.name}: {type(engine).__name__} does not derive "
            "from metaloss.meta_optimizers.engine.Engine, which updates φ by the meta-gradient, "
            "nor from metaloss.meta_optimizers.search.SearchRule"
        )


@torch.no_grad()
def check_outputs(
    model: FunctionalModel, loss: LearnedLoss, task: Task, device: torch.device
) -> None:
    """Test model and loss on two rows, before anything is written."""
    params, buffers = model.state(device=device)
    if not params:
        raise MetalossError("the model has no parameters to train")
    shapes = ", ".join(
        f"{name} (B, {', '.join(map(str, value.shape[1:]))})".lstrip()
        for name, value in named(task.train.inputs).items()
    )
    with told(f"inputs of shape {shapes}"):
        outputs, _ = model(params, buffers, task.train.inputs[:2].to(device), train=False)
    if outputs.dim() < 2 or outputs.shape[1] != task.outputs:
        raise MetalossError(
            f"the model returns outputs of shape {tuple(outputs.shape)}; the task {task.name} "
            f"needs (B, {task.outputs}, *)"
        )
    like = next(loss.parameters(), outputs)
    loss(outputs.to(like.dtype), task.train.targets[: len(outputs)].to(device))


def check_passes(
    model: FunctionalModel, state: InnerState, batch: Batch, meta_batch: Batch
) -> None:
    """Test training passes on batches of a run, and find the side effects of the model."""
    key = key_tensor(0, "check", device=batch.targets.device)
    with told(f"a training batch of {len(batch.targets)} rows"):
        model.examine(state.params, state.buffers, batch.inputs, key)
    if len(meta_batch.targets) != len(batch.targets):
        with told(f"a meta-batch of {len(meta_batch.targets)} rows"), torch.no_grad():
            model(state.params, state.buffers, meta_batch.inputs, key=key)
