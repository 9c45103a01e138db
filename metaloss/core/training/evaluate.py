"""Metrics of the current weights on a whole split."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from metaloss.contracts import Task
from metaloss.core.training.ladder import learned_nothing
from metaloss.data.targets.constant import fitted_constant
from metaloss.errors import MetalossError
from metaloss.inner.model.functional import FunctionalModel
from metaloss.types import Batch, InnerState, Link

_ROWS_AT_ONCE = 4096


@torch.no_grad()
def outputs_of(model: FunctionalModel, state: InnerState, inputs: Tensor) -> Tensor:
    """Return the raw outputs (N, C, *) in evaluation mode, a block of rows at a time."""
    device = next(iter(state.params.values())).device
    blocks = [
        # Streamed rows are on the CPU.
        model(state.params, state.buffers, block.to(device), train=False)[0]
        for block in inputs.split(_ROWS_AT_ONCE)
    ]
    return torch.cat(blocks)


@torch.no_grad()
def evaluate(
    model: FunctionalModel, state: InnerState, task: Task, splits: dict[str, Batch]
) -> dict[str, Tensor]:
    """Return the metric and the task loss of each split, as 0-d tensors by name."""
    numbers = {}
    for name, rows in splits.items():
        outputs = outputs_of(model, state, rows.inputs)
        metric = task.metric(outputs, rows.targets)
        if not isinstance(metric, Tensor) or metric.numel() != 1:
            got = tuple(metric.shape) if isinstance(metric, Tensor) else type(metric).__name__
            raise MetalossError(
                f"metric {task.metric_name} returns {got}; expected a scalar tensor"
            )
        numbers[f"{name}/{task.metric_name}"] = metric.reshape(()).to(outputs.device)
        numbers[f"{name}/task_loss"] = task.weighted_loss(outputs, rows.targets)
    return numbers


@torch.no_grad()
def constant_metric(task: Task, split: str = "valid") -> float:
    """Return the metric of a split for the best constant prediction of the training targets.

    NaN if no constant is known, because a user's metric may need other outputs.
    """
    rows: Batch = getattr(task, split)
    try:
        constant = _constant_outputs(task).to(rows.targets.device)
        places = rows.targets.shape[2:] if _has_columns(task) else rows.targets.shape[1:]
        outputs = constant.expand(len(rows.targets), task.outputs, *places).contiguous()
        return float(task.metric(outputs, rows.targets))
    except (RuntimeError, ValueError, IndexError, TypeError):
        return math.nan


def constant_metrics(task: Task) -> dict[str, float]:
    """Return the metrics of the best constant prediction on the evaluated splits."""
    return {f"{name}/{task.metric_name}": constant_metric(task, name) for name in ("valid", "test")}


def is_chance(
    metrics: Mapping[str, float], constants: Mapping[str, float], task: Task, split: str = "test"
) -> bool:
    """Return whether metrics of a split are not better than those of a constant prediction.

    It must be better neither by the metric nor by the task loss: the most frequent class can be the
    best prediction of an imbalanced task, and a model with few errors can have a high task loss.
    """
    name = f"{split}/{task.metric_name}"
    return learned_nothing(metrics[name], constants[name], task.goal) and learned_nothing(
        metrics[f"{split}/task_loss"], task.constant_loss
    )


def _has_columns(task: Task) -> bool:
    """Whether targets are (B, C, *), and not (B, *) class indices."""
    return task.link is not Link.softmax or task.train.targets.is_floating_point()


def _constant_outputs(task: Task) -> Tensor:
    """Return the best constant raw outputs (1, C, *1) for the training targets."""
    targets = task.train.targets
    if not _has_columns(task):
        counted = targets[targets != task.ignore_index]
        counts = torch.bincount(counted, minlength=task.outputs)
        if task.class_weights is not None:
            counts = counts * torch.tensor(task.class_weights, device=counts.device)
        shares = counts / counts.sum()
        # A class without rows has log 0; use a finite value far below the others.
        return shares.clamp(min=1e-12).log().view(1, -1, *[1] * (targets.dim() - 1))
    if targets.dim() < 2 or targets.shape[1] != task.outputs:
        # A user's task loss, for which the outputs may not be predictions of the targets.
        return fitted_constant(targets.cpu(), task.outputs, task.task_loss)[1].float()
    mean = targets.float().transpose(0, 1).flatten(1).mean(1)
    if task.link is Link.softmax:
        mean = mean.clamp(min=1e-12).log()
    elif task.link is Link.sigmoid:
        mean = torch.logit(mean, eps=1e-6)
    return mean.view(1, -1, *[1] * (targets.dim() - 2))
