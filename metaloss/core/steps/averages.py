"""Moving averages of the network's weights and of φ during training.

A network trained on wrong labels goes to and fro between those that it fits; the mean of its last
weights contradicts them less. The averages only look on: no step depends on them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metaloss.inner.averages import moved_towards, warmed_up
from metaloss.types import InnerState, Tensors


class Averages(NamedTuple):
    """The averages; those with decay 0 are empty.

    ``params`` and ``buffers``: of θ and of the buffers; ``phi``: of φ; ``steps`` (), ``meta_steps``
    (): the number of training steps and of meta-steps in them.
    """

    params: Tensors
    buffers: Tensors
    phi: Tensors
    steps: Tensor
    meta_steps: Tensor


class Decays(NamedTuple):
    """The decay of each average, for one step or meta-step; 0: there is none."""

    theta: float = 0.0
    phi: float = 0.0


def begun(decays: Decays, inner: InnerState, phi: Tensors) -> Averages | None:
    """Return the averages before the first step; None: there are none."""
    if not any(decays):
        return None
    zero = torch.zeros((), dtype=torch.int64, device=next(iter(inner.params.values())).device)
    theta = (inner.params, inner.buffers) if decays.theta else ({}, {})
    phi = phi if decays.phi else {}
    return Averages(*theta, phi, zero, zero)


def updated(
    averages: Averages,
    inner: InnerState,
    phi: Tensors,
    moved: Tensor | None = None,
    *,
    decays: Decays,
    steps: int,
) -> Averages:
    """Return the averages after K steps, of which ``inner`` and ``phi`` are the results.

    The weights after the last of them count for all K, with the decay dᴷ. ``moved`` (), bool:
    whether there was a meta-step; None: there was none.

    Example:
        >>> inner = InnerState({"w": torch.ones(1)}, {}, None)
        >>> before = begun(Decays(0.9), InnerState({"w": torch.zeros(1)}, {}, None), {})
        >>> after = updated(before, inner, {}, decays=Decays(0.9), steps=2)
        >>> after.params["w"], after.steps  # 1 − 0.1²
        (tensor([0.9900]), tensor(2))
    """
    params, buffers, own, count, meta_count = averages
    if decays.theta:
        share = 1 - warmed_up(decays.theta, count) ** steps
        params = moved_towards(params, inner.params, share)
        buffers = moved_towards(buffers, inner.buffers, share)
    if moved is not None:
        own = moved_towards(own, phi, (1 - warmed_up(decays.phi, meta_count)) * moved)
        meta_count = meta_count + moved
    return Averages(params, buffers, own, count + steps, meta_count)
