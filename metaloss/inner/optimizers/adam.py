"""Adam and AdamW as pure functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from metaloss.errors import check_range
from metaloss.inner.optimizers.idle import by_name, no_idle_steps, own_counts
from metaloss.inner.optimizers.rates import Rated
from metaloss.inner.optimizers.roots import safe_sqrt
from metaloss.types import Tensors


@dataclass(frozen=True, kw_only=True)
class Adam(Rated):
    """Adam; equals ``torch.optim.Adam``. Weight decay is added to the gradient.

    Raises:
        MetalossError: If an option is out of range.

    Reference:
        Kingma & Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.

    Example:
        >>> adam = Adam(lr=0.1)
        >>> params = {"w": torch.tensor([2.0])}
        >>> new, state = adam.update({"w": torch.tensor([5.0])}, adam.init(params), params)
        >>> new["w"]
        tensor([1.9000])
    """

    lr: float = field(default=0.001, metadata={"help": "learning rate, > 0"})
    beta1: float = field(default=0.9, metadata={"help": "decay of the first moment, in [0, 1)"})
    beta2: float = field(default=0.999, metadata={"help": "decay of the second moment, in [0, 1)"})
    eps: float = field(default=1e-8, metadata={"help": "added to the root, > 0"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("inner.beta1", self.beta1, 0 <= self.beta1 < 1, "a number in [0, 1)")
        check_range("inner.beta2", self.beta2, 0 <= self.beta2 < 1, "a number in [0, 1)")
        check_range("inner.eps", self.eps, self.eps > 0, "a positive number")

    def init(self, params: Tensors) -> Any:
        """Return the step counter and zero moments."""
        device = next(iter(params.values())).device
        return {
            "step": torch.zeros((), dtype=torch.int64, device=device),
            "first": {name: torch.zeros_like(p) for name, p in params.items()},
            "second": {name: torch.zeros_like(p) for name, p in params.items()},
            "idle": no_idle_steps(params),
        }

    def update(self, grads: Tensors, state: Any, params: Tensors) -> tuple[Tensors, Any]:
        """Return the parameters and state after one step."""
        step = state["step"]
        rate = self.rate(step)
        grads, decayed = self._decay(self.clipped(grads), params, rate)
        first = {n: self.beta1 * state["first"][n] + (1 - self.beta1) * g for n, g in grads.items()}
        second = {
            n: self.beta2 * state["second"][n] + (1 - self.beta2) * g * g for n, g in grads.items()
        }
        counts, idle = own_counts(step, state["idle"], grads, params)
        count = (counts + 1).to(torch.float64)
        size = by_name(rate / (1 - self.beta1**count), params)
        spread = by_name((1 - self.beta2**count).sqrt(), params)
        new = {}
        for name in grads:
            move = size[name] * first[name] / (safe_sqrt(second[name]) / spread[name] + self.eps)
            # The cast is for 0-d parameters, which a float64 factor would promote.
            new[name] = (decayed[name] - move).to(params[name].dtype)
        return {**params, **new}, {
            "step": step + 1,
            "first": {**state["first"], **first},
            "second": {**state["second"], **second},
            "idle": idle,
        }

    def _decay(
        self, grads: Tensors, params: Tensors, rate: torch.Tensor
    ) -> tuple[Tensors, Tensors]:
        return self.with_decay(grads, params), params


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay; equals ``torch.optim.AdamW``.

    Reference:
        Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2.

    Example:
        >>> adamw = AdamW(lr=0.1, weight_decay=0.5)
        >>> params = {"w": torch.tensor([2.0])}
        >>> new, _ = adamw.update({"w": torch.tensor([5.0])}, adamw.init(params), params)
        >>> new["w"]  # 2 (1 − 0.1 · 0.5) − 0.1
        tensor([1.8000])
    """

    weight_decay: float = field(default=0.01, metadata={"help": "decoupled, ≥ 0"})

    def _decay(
        self, grads: Tensors, params: Tensors, rate: torch.Tensor
    ) -> tuple[Tensors, Tensors]:
        shrink = 1 - rate * self.weight_decay
        return grads, {
            n: (params[n] * shrink).to(params[n].dtype) if self.decays(params[n]) else params[n]
            for n in grads
        }
