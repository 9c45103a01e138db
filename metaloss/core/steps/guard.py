"""Checks every step on the device, and leaves out bad ones.

A step is bad if a value is not finite, if the update is much larger than usual *and* large compared
with the weights, or if the task loss on the training batch is much larger than usual and larger
than that of a constant prediction. "Usual" means the running median over good steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.inner.gradients import norm
from metaloss.losses.targets import readable
from metaloss.types import Tensors

# Wide limits, because refusing a good step is worse than finding a bad one later.
UPDATE_LIMIT = 20.0
UPDATE_SHARE = 0.1  # of ‖θ‖: smaller updates are never bad
LOSS_LIMIT = 10.0
MEMORY = 64  # number of good steps in a median
WARM_UP = 10  # good steps before medians are used

T = TypeVar("T")


class GuardState(NamedTuple):
    """The memory of the checks, on the device.

    ``updates`` and ``losses`` (MEMORY,): a ring of past good steps, NaN where unused; ``seen`` ():
    good steps so far; ``bad`` (): bad steps since they were last read; ``constant`` (): task loss
    of the best constant prediction.
    """

    updates: Tensor
    losses: Tensor
    seen: Tensor
    bad: Tensor
    constant: Tensor

    @classmethod
    def fresh(cls, device: torch.device, constant_loss: float) -> GuardState:
        """Return an empty memory."""
        empty = torch.full((MEMORY,), float("nan"), device=device)
        zero = torch.zeros((), dtype=torch.int64, device=device)
        constant = torch.full((), constant_loss, device=device)
        return cls(empty, empty.clone(), zero, zero.clone(), constant)


def check(
    guard: GuardState,
    old: Tensors,
    new: Tensors,
    losses: Tensor,
    others: list[Tensor],
) -> tuple[Tensor, GuardState]:
    """Check one segment of steps from θ before and after it, without waiting for the device.

    ``losses`` are the K task losses on the training batches. ``others`` must be finite too: the new
    φ and its optimizer's state.

    Returns:
        ok, a 0-d bool, and the memory with the step in it if it was good.
    """
    moved = norm([new[name] - old[name] for name in new]) / len(losses)
    weights = norm(list(old.values()))
    worst = losses.max()
    finite = torch.isfinite(moved + worst)
    if others:
        finite = finite & torch.isfinite(norm(others))
    believed = guard.seen >= WARM_UP
    usual_update = guard.updates.nanmedian()
    usual_loss = guard.losses.nanmedian().maximum(guard.constant)
    large = believed & (moved > UPDATE_LIMIT * usual_update) & (moved > UPDATE_SHARE * weights)
    usual_loss = torch.where(believed, usual_loss, guard.constant)
    steep = worst > LOSS_LIMIT * usual_loss
    ok = finite & ~large & ~steep
    here = ok & (torch.arange(MEMORY, device=moved.device) == guard.seen % MEMORY)
    return ok, GuardState(
        torch.where(here, moved.to(guard.updates.dtype), guard.updates),
        torch.where(here, worst.to(guard.losses.dtype), guard.losses),
        guard.seen + ok,
        guard.bad + ~ok,
        guard.constant,
    )


def choose(
    ok: Tensor, new: T, old: T, vmap_members: Callable[..., Any] = lambda function: function
) -> T:
    """Return ``new`` where ok, else ``old``: two pytrees of the same shape, bit by bit.

    ``vmap_members`` applies a function to every member where the values are stacked.
    """
    if readable(ok):
        if ok.all():
            return new
        if not ok.dim():
            return old
    ahead, spec = pytree.tree_flatten(new)
    behind = pytree.tree_leaves(old)
    moved = [index for index, leaf in enumerate(ahead) if leaf is not behind[index]]
    if moved:
        found = vmap_members(_where)(
            ok, [ahead[index] for index in moved], [behind[i] for i in moved]
        )
        for index, value in zip(moved, found, strict=True):
            ahead[index] = value
    return pytree.tree_unflatten(ahead, spec)


def _where(ok: Tensor, new: list[Tensor], old: list[Tensor]) -> list[Tensor]:
    return [torch.where(ok, a, b) for a, b in zip(new, old, strict=True)]
