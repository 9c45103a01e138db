"""Whether some rows of a batch can stand for all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from metaloss.errors import UnsupportedError
from metaloss.inner.problem import InnerProblem
from metaloss.types import Batch, InnerState, RowSample, StoredStep, Tensors, Window


@torch.no_grad()
def refuse_coupled_rows(
    problem: InnerProblem, share: float, phi: Tensors, state: InnerState, window: Window
) -> None:
    """Raise if a sample of rows says nothing about the batch; costs two forward passes.

    The outputs of a row must be the same without the other rows, except for BatchNorm, whose
    moments are known. The learned loss must be a mean over rows.

    Raises:
        UnsupportedError: If the model or the loss looks across rows.
    """
    batch, key, (params, buffers, _) = window.batches[0], window.keys[0], state
    outputs, after = problem.predict(params, buffers, batch, key)
    sample = problem.sampled(StoredStep(state, batch, key, {}), after, share)
    if len(sample.rows) == len(batch.targets) or not bool(outputs.isfinite().all()):
        return
    reason = None
    try:
        alone = problem.predict(params, buffers, batch, key, sample)[0]
    except Exception as error:  # a model may need all rows in any way
        reason = f"the model fails on a part of a batch ({str(error).splitlines()[0]})"
    else:
        if not _close(alone, outputs[sample.rows]):
            reason = "the model's output for a row depends on the other rows of the batch"
    if reason is None and not _is_mean(problem, phi, outputs, batch, sample):
        reason = f"the loss {type(problem.loss).__name__} is no mean over the rows of a batch"
    if reason is not None:
        raise UnsupportedError(f"meta_optimizer.rows={share:g}: {reason}: use rows=1")


def _is_mean(
    problem: InnerProblem, phi: Tensors, outputs: Tensor, batch: Batch, sample: RowSample
) -> bool:
    chosen = torch.zeros(sample.total, dtype=torch.bool, device=outputs.device)
    chosen[sample.rows] = True
    whole = problem.learned_loss(phi, outputs, batch.targets)
    total = torch.zeros_like(whole)
    for rows in (chosen.nonzero()[:, 0], (~chosen).nonzero()[:, 0]):
        total += len(rows) * problem.sample_loss(phi, outputs[rows], batch.targets, rows)
    return _close(total / sample.total, whole)


def _close(found: Tensor, expected: Tensor) -> bool:
    # BatchNorm's moments are read from the running ones, which costs a digit or two.
    wide = torch.finfo(expected.dtype).eps < 1e-10
    precision = 1e-6 if wide else 1e-3
    scale = float(expected.abs().max())
    return float((found - expected).abs().max()) <= precision * max(scale, 1e-6)
