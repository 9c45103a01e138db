"""Stochastic gradient descent with momentum, as a pure function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from metaloss.errors import MetalossError, check_range
from metaloss.inner.optimizers.idle import by_name, no_idle_steps, own_counts
from metaloss.inner.optimizers.rates import Rated
from metaloss.types import Tensors


@dataclass(frozen=True, kw_only=True)
class SGD(Rated):
    """SGD with momentum, Nesterov momentum and weight decay; equals ``torch.optim.SGD``.

    Raises:
        MetalossError: If an option is out of range.

    Example:
        >>> sgd = SGD(lr=0.5, momentum=0.0)
        >>> params = {"w": torch.tensor([2.0])}
        >>> new, state = sgd.update({"w": torch.tensor([1.0])}, sgd.init(params), params)
        >>> new["w"]
        tensor([1.5000])
    """

    # No momentum by default. With momentum 0.9, a meta-gradient through few steps contains a tenth
    # of a step's later effect, so that the loss becomes steeper until training diverges.
    momentum: float = field(default=0.0, metadata={"help": "momentum, ≥ 0"})
    dampening: float = field(
        default=0.0,
        metadata={
            "help": "dampening of the momentum",
            "needs": (lambda own: own.momentum, "inner.momentum"),
        },
    )
    nesterov: bool = field(default=False, metadata={"help": "use Nesterov momentum"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("inner.momentum", self.momentum, self.momentum >= 0, "a number ≥ 0")
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise MetalossError(
                f"inner.nesterov=true with momentum={self.momentum} and dampening="
                f"{self.dampening}: expected a positive momentum and no dampening"
            )

    def init(self, params: Tensors) -> Any:
        """Return the step counter and, with momentum, zero buffers."""
        device = next(iter(params.values())).device
        state: dict[str, Any] = {"step": torch.zeros((), dtype=torch.int64, device=device)}
        if self.momentum:
            state["momentum"] = {name: torch.zeros_like(p) for name, p in params.items()}
        if self.momentum and self.dampening:
            state["idle"] = no_idle_steps(params)
        return state

    def update(self, grads: Tensors, state: Any, params: Tensors) -> tuple[Tensors, Any]:
        """Return the parameters and state after one step."""
        step = state["step"]
        rate = self.rate(step)
        new_state: dict[str, Any] = {"step": step + 1}
        grads = self.with_decay(self.clipped(grads), params)
        if self.momentum:
            old = state["momentum"]
            # As in torch.optim, the first gradient is not dampened.
            share: dict[str, Any] = dict.fromkeys(grads, 1.0)
            if self.dampening:
                counts, idle = own_counts(step, state["idle"], grads, params)
                share = by_name(1.0 - self.dampening * (counts > 0).to(torch.float64), params)
            momentum = {
                n: (self.momentum * old[n] + share[n] * g).to(g.dtype) for n, g in grads.items()
            }
            new_state["momentum"] = {**old, **momentum}
            if self.dampening:
                new_state["idle"] = idle
            if self.nesterov:
                grads = {name: g + self.momentum * momentum[name] for name, g in grads.items()}
            else:
                grads = momentum
        # The cast is for 0-d parameters, which a float64 factor would promote.
        new = {n: (params[n] - rate * g).to(params[n].dtype) for n, g in grads.items()}
        return {**params, **new}, new_state
