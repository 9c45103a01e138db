"""What a loss sees of a row when nothing is known of it, and the rank of its loss in the batch."""

from __future__ import annotations

import math
from collections.abc import Collection
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from metaloss.errors import MetalossError
from metaloss.types import Link, Row

# What `metaloss.types.Row` may hold.
FIELDS = frozenset(Row._fields)
# What only a run knows: a ledger of past predictions, the number of steps, row numbers.
OF_RUNS = FIELDS - {"outputs"}

# Above this decay β, 1 − β^v loses digits: all of them in single precision from 1 − 6e-8 on. Below
# it, −expm1(v log β) would only round otherwise.
_SLOW = 0.99


def chance(link: Link, classes: int) -> tuple[float, float]:
    """Return the memory of a row that was never visited: that of a guess.

    With the softmax link, the probability 1/C and the share 1 − 1/C of wrong guesses.

    Example:
        >>> chance(Link.softmax, 4)
        (0.25, 0.75)
    """
    if link is Link.softmax:
        return 1 / classes, 1 - 1 / classes
    return 0.5, 0.5 if link is Link.sigmoid else 0.0


def completed(row: Row | None, logits: Tensor, link: Link, sees: Collection[str] = FIELDS) -> Row:
    """Return the row with values for what is not known of it: that of a row never visited.

    Args:
        row: What is known; None: nothing.
        logits: (B, C, *) raw outputs.
        link: The link of the loss.
        sees: The fields that the loss sees.

    Raises:
        MetalossError: If the loss sees the ``average``, and only the ``visits`` are known, or if
            what it sees has another shape than in `metaloss.types.Row`.

    Example:
        >>> known = Row(average=torch.tensor([[0.1, 0.9]]))
        >>> row = completed(known, torch.zeros(1, 2), Link.softmax)
        >>> mean_prediction(row, 0.9, Link.softmax)
        tensor([[0.1000, 0.9000]])
    """
    row = row or Row()
    if "average" in sees and row.average is None and row.visits is not None:
        raise MetalossError("Row(visits=...): expected the average of the visits with it")
    count, classes = logits.shape[:2]
    wanted: dict[str, tuple[int, ...]] = {
        "memory": (count, 2),
        "average": (count, classes),
        **dict.fromkeys(("visits", "progress", "number"), (count,)),
    }
    for name, shape in wanted.items():
        value: Any = getattr(row, name) if name in sees else None
        if value is not None and getattr(value, "shape", None) != shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise MetalossError(f"Row({name}=...) is {got}: expected a tensor {shape}")

    def floats(value: Tensor | None, default: Tensor) -> Tensor:
        # Without a graph: none of these is differentiated.
        return (default if value is None else value).detach().to(logits.dtype)

    unseen = logits.new_tensor(chance(link, classes)).expand(count, 2)
    number = row.number
    return Row(
        memory=floats(row.memory, unseen),
        average=floats(row.average, logits.new_zeros(count, classes)),
        # An average without a number of visits is taken as it is.
        visits=floats(row.visits, logits.new_full((count,), 0 if row.average is None else inf)),
        progress=floats(row.progress, logits.new_zeros(count)),
        number=torch.full((count,), -1, device=logits.device) if number is None else number,
        outputs=floats(row.outputs, logits),
    )


def mean_prediction(row: Row, decay: float, link: Link) -> Tensor:
    """Return the weighted mean (B, C) of a row's earlier predictions; that of a guess without any.

    The moving average a ← β a + (1 − β) p begins at 0: after v visits, its weights sum to 1 − β^v.

    Args:
        row: With `average` and `visits`.
        decay: β, in [0, 1).
        link: The link of the loss. A guess is 1/C, 1/2 or, in regression, 0.

    Example:
        >>> row = Row(average=torch.tensor([[0.1, 0.4], [0.0, 0.0]]), visits=torch.tensor([1.0, 0]))
        >>> mean_prediction(row, 0.5, Link.softmax)
        tensor([[0.2000, 0.8000],
                [0.5000, 0.5000]])
    """
    assert row.average is not None
    assert row.visits is not None
    seen = (row.visits > 0).unsqueeze(1)
    if decay > _SLOW:
        weight = -torch.expm1(row.visits * math.log(decay))
    else:
        weight = 1 - decay**row.visits
    weight = weight.unsqueeze(1)
    guess = 0.0 if link is Link.identity else chance(link, row.average.shape[1])[0]
    return torch.where(seen, row.average / torch.where(seen, weight, 1), guess)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy (B, *) of raw outputs (B, C, *) and encoded targets (B, C, *)."""
    return -(target * F.log_softmax(logits, 1)).sum(1)


def usual_loss(outputs: Tensor, target: Tensor, link: Link) -> Tensor:
    """Return the cross-entropy (B, *) of raw outputs; in regression the squared error.

    Both arguments are (B, C, *), the target encoded.
    """
    if link is Link.softmax:
        return cross_entropy(outputs, target)
    if link is Link.sigmoid:
        return F.binary_cross_entropy_with_logits(outputs, target, reduction="none").mean(1)
    return (outputs - target).square().mean(1)


def rank(values: Tensor) -> Tensor:
    """Return the ranks (B,) of rows by their mean value, between 0 (lowest) and 1 (highest).

    Example:
        >>> rank(torch.tensor([3.0, 1.0, 2.0, 5.0]))
        tensor([0.6250, 0.1250, 0.3750, 0.8750])
    """
    means = values.detach().flatten(1).mean(1) if values.dim() > 1 else values.detach()
    places = means.argsort(stable=True).argsort()
    return (places + 0.5).to(values.dtype) / len(values)


def spread(values: Tensor, like: Tensor) -> Tensor:
    """Return values (B,) of rows with the further dimensions of ``like`` (B, *)."""
    return values.view(-1, *[1] * (like.dim() - 1)).expand_as(like)
