"""Metrics of the current weights on a whole split."""

from __future__ import annotations

import torch
from torch import Tensor

from metaloss.contracts import Task
from metaloss.inner.functional import FunctionalModel
from metaloss.types import Batch, InnerState, Link

_ROWS_AT_ONCE = 4096


@torch.no_grad()
def outputs_of(model: FunctionalModel, state: InnerState, inputs: Tensor) -> Tensor:
    """Return the raw outputs (N, C, *) in evaluation mode, a block of rows at a time."""
    blocks = [
        model(state.params, state.buffers, block, train=False)[0]
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
        numbers[f"{name}/{task.metric_name}"] = task.metric(outputs, rows.targets)
        numbers[f"{name}/task_loss"] = task.task_loss(outputs, rows.targets)
    return numbers


@torch.no_grad()
def constant_metric(task: Task) -> float:
    """Return the validation metric of the best constant prediction of the training targets."""
    targets, valid = task.train.targets, task.valid.targets
    if task.link is Link.softmax and not targets.is_floating_point():
        counts = torch.bincount(targets.flatten(), minlength=task.outputs).float()
        constant = counts.view(1, -1, *[1] * (valid.dim() - 1))
        constant = constant.expand(len(valid), task.outputs, *valid.shape[1:])
    else:
        constant = targets.float().mean(0, keepdim=True).expand_as(valid)
        if task.link is Link.sigmoid:
            constant = torch.logit(constant, eps=1e-6)
    return float(task.metric(constant, valid))
