"""The ledger: how well the network predicted the label of each training row, over all of training.

A wrong label is predicted late, or never. So rows whose label had a low probability for most of
training are suspect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from metaloss.contracts import Task
from metaloss.inner.problem import InnerProblem
from metaloss.inner.weighted import with_row
from metaloss.losses.base import apply_link
from metaloss.losses.rows import chance
from metaloss.types import Link, Tensors, Window

# The columns: the sum over all visits of the probability of the given label (regression: of the
# squared error), the number of visits with a wrong guess, the probability at the last visit, and
# the number of visits. If the loss sees it, C columns follow: the moving average of the prediction.
COLUMNS = ("sum", "wrong", "last", "visits")

# (raw outputs (B, C, *), targets) -> (B, 3): probability, wrong or not, whether the row counts; and
# perhaps the prediction, in C more columns.
Notes = Callable[[Tensor, Tensor], Tensor]


def notes_of(task: Task) -> Notes | None:
    """Return what the ledger needs of a batch's outputs; None if the task allows no ledger."""
    values = task.train.targets.is_floating_point()
    if values and (task.train.targets.dim() < 2 or task.train.targets.shape[1] != task.outputs):
        return None  # a user's task loss, for which outputs are not predictions of the targets
    if task.link is Link.softmax:
        return partial(note_classes, ignore_index=task.ignore_index)
    return note_binary if task.link is Link.sigmoid else note_values


def with_predictions(notes: Notes, link: Link) -> Notes:
    """Return notes (B, 3 + C) that end with the predictions, means over a row's positions."""

    def noted(outputs: Tensor, targets: Tensor) -> Tensor:
        predictions = apply_link(_wide(outputs), link)
        if predictions.dim() > 2:
            predictions = predictions.flatten(2).mean(2)
        return torch.cat((notes(outputs, targets), predictions), 1)

    return noted


def recall(
    ledger: Tensor, numbers: Tensor, progress: Tensor, *, link: Link, classes: int
) -> Tensors:
    """Return what is known of training rows, by the names of `Row`, for a loss that sees it.

    With one more visit at the level of a guess, the means of a row that was visited once or twice
    are not extreme. In regression, a mean squared error of m counts as 1 / (1 + m).

    Args:
        ledger: (N, 4) or (N, 4 + C).
        numbers: (B,) row numbers.
        progress: () share of the training steps that were taken.
        link: The task's link.
        classes: C, the number of outputs.

    Example:
        >>> ledger = torch.tensor([[0.0, 0.0, 0.0, 0.0], [2.7, 1.0, 0.9, 3.0]])
        >>> rows, progress = torch.tensor([1, 0]), torch.tensor(0.5)
        >>> recall(ledger, rows, progress, link=Link.sigmoid, classes=1)["memory"]
        tensor([[0.8000, 0.3750],
                [0.5000, 0.5000]])
    """
    found = ledger[numbers]
    total, wrong, _, visits = found[:, : len(COLUMNS)].unbind(1)
    share, missed = chance(link, classes)
    if link is Link.identity:
        well = 1 / (1 + (total + 1) / (visits + 1))
    else:
        well = (total + share) / (visits + 1)
    memory = torch.stack([well, (wrong + missed) / (visits + 1)], 1)
    known = {
        "memory": memory,
        "visits": visits,
        "progress": progress.expand(len(numbers)),
        "number": numbers,
    }
    predictions = found[:, len(COLUMNS) :]
    return known | ({"average": predictions} if predictions.shape[1] else {})


def recalled(problem: InnerProblem, ledger: Tensor | None, window: Window) -> Window:
    """Return the window with what the loss sees of the training rows before its steps."""
    recall, progress = problem.recall, window.progress
    if recall is None or progress is None or window.rows is None or ledger is None:
        return window
    known = problem.vmap_members(recall)
    batches = [
        with_row(batch, **known(ledger, numbers, share))
        for batch, numbers, share in zip(window.batches, window.rows, progress, strict=True)
    ]
    return window._replace(batches=tuple(batches))


def note_classes(outputs: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    """Return (B, 3) notes on class indices (B, *), or on the largest of soft targets (B, C, *).

    Of a row with several positions, these are means over the positions that count. A row without
    such a position does not count.

    Example:
        >>> outputs = torch.tensor([[0.0, 0.0], [0.0, 2.0]])
        >>> note_classes(outputs, torch.tensor([-100, 0]), -100)[1].round(decimals=2)
        tensor([0.1200, 1.0000, 1.0000])
    """
    labels = targets.argmax(1) if targets.is_floating_point() else targets
    counts = labels != ignore_index
    labels = torch.where(counts, labels, 0)
    shares = _wide(outputs).softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
    wrong = outputs.argmax(1) != labels
    if labels.dim() == 1:  # the usual case, in half the operations
        return torch.stack([shares, wrong.to(shares.dtype), counts.to(shares.dtype)], 1)
    number = counts.reshape(len(counts), -1).sum(1)
    means = [
        torch.where(counts, value, torch.zeros_like(value)).reshape(len(counts), -1).sum(1)
        / number.clamp(min=1)
        for value in (shares, wrong.to(shares.dtype))
    ]
    return torch.stack([*means, (number > 0).to(shares.dtype)], 1)


def note_binary(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return (B, 3) notes on targets in [0, 1] (B, C, *): means over all of a row's outputs."""
    shares = _wide(outputs).sigmoid()
    shares = torch.where(targets > 0.5, shares, 1 - shares).flatten(1).mean(1)
    wrong = ((outputs > 0) != (targets > 0.5)).to(shares.dtype).flatten(1).mean(1)
    return torch.stack([shares, wrong, torch.ones_like(shares)], 1)


def note_values(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return (B, 3) notes on values (B, C, *): the squared error, and no wrong guesses."""
    error = (_wide(outputs) - targets).square().flatten(1).mean(1)
    return torch.stack([error, torch.zeros_like(error), torch.ones_like(error)], 1)


def _wide(outputs: Tensor) -> Tensor:
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


def fresh(rows: int, params: Tensors, predictions: int = 0) -> Tensor:
    """Return the ledger (rows, 4) before the first visit; see `COLUMNS`. ``params``: θ.

    ``predictions``: C, if the ledger holds predictions too.
    """
    like = next(iter(params.values()))
    columns = len(COLUMNS) + predictions
    return _wide(torch.zeros(rows, columns, device=like.device, dtype=like.dtype))


def updated(
    ledger: Tensor, rows: Sequence[Tensor], notes: Tensor, ok: Tensor, *, decay: float = 0.0
) -> Tensor:
    """Return the ledger after K steps, which may visit a row several times.

    Args:
        ledger: (N, 4) or (N, 4 + C).
        rows: The row numbers (B,) of each step's batch, without repetitions.
        notes: (K, B, 3) or (K, B, 3 + C) of the steps' outputs.
        ok: (), bool: whether the guard accepted the steps. Otherwise the ledger does not change.
        decay: β of the moving average of predictions.

    Example:
        >>> notes = torch.tensor([[[0.25, 1.0, 1.0]], [[0.5, 0.0, 1.0]]])
        >>> row = torch.tensor([1])
        >>> updated(fresh(2, {"w": torch.ones(1)}), [row, row], notes, torch.tensor(True))
        tensor([[0.0000, 0.0000, 0.0000, 0.0000],
                [0.7500, 1.0000, 0.5000, 2.0000]])
    """
    for chosen, noted in zip(rows, notes.unbind(), strict=True):
        noted = noted.to(ledger.dtype)
        share, wrong, counts = noted[:, :3].unbind(1)
        before = ledger[chosen]
        total, misses, _, visits = before[:, : len(COLUMNS)].unbind(1)
        after = torch.stack([total + share, misses + wrong, share, visits + 1], 1)
        if noted.shape[1] > 3:
            averages = decay * before[:, len(COLUMNS) :] + (1 - decay) * noted[:, 3:]
            after = torch.cat((after, averages), 1)
        taken = (ok & (counts > 0)).unsqueeze(1)
        ledger = ledger.index_put((chosen,), torch.where(taken, after, before))
    return ledger
