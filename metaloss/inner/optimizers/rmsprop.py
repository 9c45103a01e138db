"""RMSprop as a pure function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from metaloss.errors import check_range
from metaloss.inner.optimizers.rates import Rated
from metaloss.inner.optimizers.roots import safe_sqrt
from metaloss.types import Tensors


@dataclass(frozen=True, kw_only=True)
class RMSprop(Rated):
    """RMSprop, centred or with momentum on request; equals ``torch.optim.RMSprop``.

    Raises:
        MetalossError: If an option is out of range.

    Reference:
        Hinton, Srivastava & Swersky, "Neural Networks for Machine Learning", lecture 6e, 2012.

    Example:
        >>> rmsprop = RMSprop(lr=0.1, alpha=0.75)
        >>> params = {"w": torch.tensor([2.0])}
        >>> new, state = rmsprop.update({"w": torch.tensor([5.0])}, rmsprop.init(params), params)
        >>> new["w"]  # 2 − 0.1 · 5 / √(0.25 · 5²)
        tensor([1.8000])
    """

    alpha: float = field(default=0.99, metadata={"help": "decay of the mean square, in [0, 1)"})
    eps: float = field(default=1e-8, metadata={"help": "added to the root, > 0"})
    momentum: float = field(default=0.0, metadata={"help": "momentum, ≥ 0"})
    centered: bool = field(default=False, metadata={"help": "divide by the standard deviation"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("inner.alpha", self.alpha, 0 <= self.alpha < 1, "a number in [0, 1)")
        check_range("inner.eps", self.eps, self.eps > 0, "a positive number")
        check_range("inner.momentum", self.momentum, self.momentum >= 0, "a number ≥ 0")

    def init(self, params: Tensors) -> Any:
        """Return the step counter and zero averages."""
        device = next(iter(params.values())).device
        kept = ["square"] + ["mean"] * self.centered + ["momentum"] * (self.momentum > 0)
        # In the order of update(), because checkpoints store trees as flat lists.
        state: dict[str, Any] = {"step": torch.zeros((), dtype=torch.int64, device=device)}
        for key in kept:
            state[key] = {name: torch.zeros_like(p) for name, p in params.items()}
        return state

    def update(self, grads: Tensors, state: Any, params: Tensors) -> tuple[Tensors, Any]:
        """Return the parameters and state after one step."""
        step = state["step"]
        rate = self.rate(step)
        new_state: dict[str, Any] = {"step": step + 1}
        grads = self.with_decay(self.clipped(grads), params)
        square = {
            n: self.alpha * state["square"][n] + (1 - self.alpha) * g * g for n, g in grads.items()
        }
        new_state["square"] = {**state["square"], **square}
        variance = square
        if self.centered:
            mean = {
                n: self.alpha * state["mean"][n] + (1 - self.alpha) * g for n, g in grads.items()
            }
            new_state["mean"] = {**state["mean"], **mean}
            variance = {name: square[name] - mean[name] ** 2 for name in grads}
        moves = {n: g / (safe_sqrt(variance[n]) + self.eps) for n, g in grads.items()}
        if self.momentum:
            moves = {n: self.momentum * state["momentum"][n] + m for n, m in moves.items()}
            new_state["momentum"] = {**state["momentum"], **moves}
        # The cast is for 0-d parameters, which a float64 factor would promote.
        new = {n: (params[n] - rate * m).to(params[n].dtype) for n, m in moves.items()}
        return {**params, **new}, new_state
