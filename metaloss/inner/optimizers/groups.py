"""Parameters in groups, each with an optimizer of its own; rates from tensors; a mean of θ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from metaloss.inner.averages import moved_towards
from metaloss.inner.optimizers.base import InnerOptimizer
from metaloss.inner.optimizers.idle import Parked, park, taken_up
from metaloss.inner.optimizers.rates import Rated, clipped
from metaloss.types import Tensors


@dataclass(frozen=True, kw_only=True)
class Groups(InnerOptimizer):
    """Several optimizers, each of which updates its own parameters.

    The state holds the rates as a tensor ``lr`` (L, G): row 0 is for the next step, and an update
    rotates the rows. So a compiled program has the rates of L steps as an input.

    Attributes:
        names: The parameters of each group by name; None: those that are in no other group. A
            parameter in no group does not move.
        optimizers: The optimizer of each group, without ``clip``.
        clip: The largest norm of the gradient, over all groups; 0: no clipping.
        ema: The decay of the exponential moving average of θ; 0: none.

    Example:
        >>> from metaloss.inner.optimizers.sgd import SGD
        >>> groups = Groups(names=(("a",), None), optimizers=(SGD(lr=1.0), SGD(lr=0.5)))
        >>> params = {"a": torch.zeros(1), "b": torch.zeros(1)}
        >>> grads = {name: torch.ones(1) for name in params}
        >>> groups.update(grads, groups.init(params), params)[0]
        {'a': tensor([-1.]), 'b': tensor([-0.5000])}
    """

    names: tuple[tuple[str, ...] | None, ...]
    optimizers: tuple[InnerOptimizer, ...]
    clip: float = 0.0
    ema: float = 0.0

    def init(self, params: Tensors) -> Any:
        """Return the rates and the state of each group; with ``ema``, the mean as well."""
        device = next(iter(params.values())).device
        rates = [getattr(one, "lr", 0.0) for one in self.optimizers]
        found: dict[str, Any] = {
            "step": torch.zeros((), dtype=torch.int64, device=device),
            "lr": torch.tensor([rates], dtype=torch.float64, device=device),
            "groups": [
                one.init(own) if own else {}
                for one, own in zip(self.optimizers, self._split(params), strict=True)
            ],
        }
        if self.ema:
            found["mean"] = _mean_init(params)
        return found

    def update(self, grads: Tensors, state: Any, params: Tensors) -> tuple[Tensors, Any]:
        """Return the parameters and the state after one step."""
        grads = clipped(grads, self.clip)
        step, lr, new, states = state["step"], state["lr"], dict(params), []
        parts = zip(
            self.optimizers, state["groups"], self._split(params), self._split(grads), strict=True
        )
        for number, (optimizer, own, theirs, slopes) in enumerate(parts):
            if not theirs:
                states.append(own)
                continue
            if isinstance(optimizer, Rated):
                # Detached, because no meta-gradient goes into the rates.
                optimizer = optimizer.at(lr[0, number].detach())
            moved, own = optimizer.update(slopes, own, theirs)
            new |= moved
            states.append(own)
        # The rates of the steps after this one; a single row stays.
        rotated = lr if len(lr) == 1 else lr.roll(-1, 0)
        found: dict[str, Any] = {"step": step + 1, "lr": rotated, "groups": states}
        if self.ema:
            found["mean"] = self._averaged(state["mean"], new)
        return new, found

    def park(self, state: Any, names: list[str]) -> Parked:
        """Return the part of the state that belongs to each parameter; see `park`."""
        every: Parked = {name: {} for name in names}
        for own, chosen in zip(state["groups"], self._chosen(names), strict=True):
            if chosen:
                every |= park(own, chosen)
        if self.ema:
            for name, mean in park(state["mean"], names).items():
                every[name] = {**every[name], **mean}
        return every

    def taken_up(self, state: Any, params: Tensors, parked: Parked) -> Any:
        """Return the state for other parameters; see `taken_up`."""
        groups = []
        for one, own, chosen in zip(
            self.optimizers, state["groups"], self._split(params), strict=True
        ):
            # A group that had no parameters has counted no steps.
            before = own or {"step": state["step"]}
            groups.append(taken_up(one.init, before, chosen, parked) if chosen else {})
        found = {**state, "groups": groups}
        if self.ema:
            found["mean"] = taken_up(_mean_init, state["mean"], params, parked)
        return found

    def _chosen(self, names: Iterable[str]) -> list[list[str]]:
        """Return the names of each group, in the order given."""
        named = {name: number for number, own in enumerate(self.names) for name in own or ()}
        rest = self.names.index(None) if None in self.names else -1
        found: list[list[str]] = [[] for _ in self.names]
        for name in names:
            number = named.get(name, rest)
            if number >= 0:
                found[number].append(name)
        return found

    def _split(self, values: Tensors) -> list[Tensors]:
        return [{name: values[name] for name in own} for own in self._chosen(values)]

    def _averaged(self, state: Any, params: Tensors) -> Any:
        step = state["step"]
        # As in torch.optim.swa_utils: the first mean is θ after the first step.
        share = 1 - self.ema * (step > 0).to(torch.float64)
        return {"step": step + 1, "ema": moved_towards(state["ema"], params, share)}


def _mean_init(params: Tensors) -> Any:
    device = next(iter(params.values())).device
    return {
        "step": torch.zeros((), dtype=torch.int64, device=device),
        "ema": {name: value.detach().clone() for name, value in params.items()},
    }
