"""Whether some rows of a batch can stand for all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from metaloss.errors import UnsupportedError
from metaloss.inner.problem import InnerProblem
from metaloss.inner.weighted import sees, with_row
from metaloss.types import Batch, InnerState, StoredStep, Tensors, Window


class _Asked(NamedTuple):
    """A batch of which a share of the rows is used.

    ``whole``: (outputs, targets) -> loss; ``part``: (outputs, targets, rows) -> its estimate.
    """

    batch: Batch
    key: Tensor
    share: float
    whole: Callable[..., Tensor]
    part: Callable[..., Tensor]
    name: str


def refuse_coupled_rows(
    problem: InnerProblem, share: float, phi: Tensors, state: InnerState, window: Window
) -> None:
    """Raise if a sample of rows says nothing about the batch; costs two forward passes for each.

    The outputs of a row must be the same without the other rows, except for BatchNorm, whose
    moments are known. The learned loss must be a mean over rows, if ``share`` of the training rows
    is below 1; the task loss, if the problem's ``judge_rows`` are.

    Raises:
        UnsupportedError: If the model or the loss looks across rows.
    """
    trained = _Asked(
        window.batches[0],
        window.keys[0],
        share,
        partial(problem.learned_loss, phi),
        partial(problem.sample_loss, phi),
        f"the loss {type(problem.loss).__name__}",
    )
    judged = _Asked(
        window.meta_batch,
        window.meta_key,
        problem.judge_rows,
        problem.task_loss_of,
        problem.sample_task_loss,
        "the task loss",
    )
    every = [("meta_optimizer.rows", trained), ("schedule.judge_rows", judged)]
    if "progress" in sees(problem.loss):
        # A loss may weigh rows only later in training.
        targets = trained.batch.targets
        ended = torch.ones(len(targets), device=targets.device)
        late = trained._replace(batch=with_row(trained.batch, progress=ended))
        every.append(("meta_optimizer.rows", late))
    for option, asked in every:
        reason = _reason(problem, state, asked) if asked.share < 1 else None
        if reason is not None:
            plain = option.rpartition(".")[2]
            raise UnsupportedError(f"{option}={asked.share:g}: {reason}: use {plain}=1")


@torch.no_grad()
def _reason(problem: InnerProblem, state: InnerState, asked: _Asked) -> str | None:
    (params, buffers, _), (batch, key, share, *_) = state, asked
    outputs, after = problem.predict(params, buffers, batch, key)
    sample = problem.sampled(StoredStep(state, batch, key, {}), after, share)
    if len(sample.rows) == len(batch.targets) or not bool(outputs.isfinite().all()):
        return None
    try:
        alone = problem.predict(params, buffers, batch, key, sample)[0]
    except Exception as error:  # a model may need all rows in any way
        return f"the model fails on a part of a batch ({str(error).splitlines()[0]})"
    if not _close(alone, outputs[sample.rows]):
        return "the model's output for a row depends on the other rows of the batch"
    chosen = torch.zeros(sample.total, dtype=torch.bool, device=outputs.device)
    chosen[sample.rows] = True
    expected = asked.whole(outputs, batch.targets)
    total = torch.zeros_like(expected)
    for rows in (chosen.nonzero()[:, 0], (~chosen).nonzero()[:, 0]):
        total += len(rows) * asked.part(outputs[rows], batch.targets, rows)
    if not _close(total / sample.total, expected):
        return f"{asked.name} is not a mean over the rows of a batch"
    return None


def _close(found: Tensor, expected: Tensor) -> bool:
    # BatchNorm's moments are read from the running ones, which costs a digit or two.
    wide = torch.finfo(expected.dtype).eps < 1e-10
    precision = 1e-6 if wide else 1e-3
    scale = float(expected.abs().max())
    return float((found - expected).abs().max()) <= precision * max(scale, 1e-6)
