"""Metrics of the current weights on a whole split."""

from __future__ import annotations

import torch
from torch import Tensor

from metaloss.contracts import Task
from metaloss.data.metrics import IGNORED
from metaloss.inner.functional import FunctionalModel
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
        numbers[f"{name}/{task.metric_name}"] = task.metric(outputs, rows.targets)
        numbers[f"{name}/task_loss"] = task.task_loss(outputs, rows.targets)
    return numbers


@torch.no_grad()
def constant_metric(task: Task) -> float:
    """Return the validation metric of the best constant prediction of the training targets."""
    targets, valid = task.train.targets, task.valid.targets
    if task.link is Link.softmax:
        if targets.is_floating_point():
            shares = targets.float().transpose(0, 1).flatten(1).mean(1)
        else:
            counted = targets[targets != IGNORED]
            shares = torch.bincount(counted, minlength=task.outputs) / len(counted)
        places = valid.shape[2:] if valid.is_floating_point() else valid.shape[1:]
        # A class that never occurs has log 0: far below the others, and finite.
        constant = shares.clamp(min=1e-12).log().view(1, -1, *[1] * len(places))
        constant = constant.expand(len(valid), task.outputs, *places)
    else:
        constant = targets.float().mean(0, keepdim=True).expand_as(valid)
        if task.link is Link.sigmoid:
            constant = torch.logit(constant, eps=1e-6)
    return float(task.metric(constant, valid))
