"""The inner optimizer of a user's model: its groups, its state and its rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils import _pytree as pytree

from metaloss import registry
from metaloss.contracts import InnerOptimizer
from metaloss.core.learner.state import copied, refilled
from metaloss.core.learner.torch_optim import rates_of, refuse_scheduler, translated
from metaloss.errors import MetalossError
from metaloss.inner.optimizers.groups import Groups
from metaloss.inner.optimizers.idle import Parked
from metaloss.inner.optimizers.param_groups import ParamGroups
from metaloss.inner.optimizers.rates import RateSchedule
from metaloss.types import Tensors

# What ``inner=`` may be.
Inner = InnerOptimizer | ParamGroups | torch.optim.Optimizer | LRScheduler | str
# A rate for all groups, or one for each.
Rates = float | Sequence[float]


def as_groups(
    inner: Inner, model: nn.Module, ema: float = 0.0, clip: float | None = None
) -> Groups:
    """Return the optimizer of a model's parameters.

    ``ema`` and ``clip`` are options of `Groups`; ``clip=None``: that of ``inner``.

    Raises:
        MetalossError: If it is something else, or does not fit the model.
    """
    if not (isinstance(ema, int | float) and 0 <= ema < 1):
        raise MetalossError(f"ema={ema}: expected a number in [0, 1), such as 0.999")
    if clip is not None and not (isinstance(clip, int | float) and 0 <= clip < math.inf):
        raise MetalossError(f"clip={clip}: expected a number ≥ 0, such as 1.0")
    given: Any = inner
    if isinstance(inner, LRScheduler):
        refuse_scheduler(inner)
        given = inner.optimizer
    elif type(inner).__name__ == "AcceleratedOptimizer":  # Hugging Face's wrapper
        given = given.optimizer
    if isinstance(given, torch.optim.Optimizer):
        found = translated(given, model)
    elif isinstance(inner, ParamGroups):
        found = inner.on(model)
    else:
        one: Any = registry.as_part(
            "inner",
            given,
            InnerOptimizer,
            option="inner",
            example="SGD(lr=0.1)",
        )
        if clip is not None and hasattr(one, "clip"):
            one = replace(one, clip=0.0)
        found = Groups(names=(None,), optimizers=(one,))
    clip = found.clip if clip is None else clip
    return Groups(names=found.names, optimizers=found.optimizers, clip=clip, ema=ema)


def rates_given(inner: Inner) -> Callable[[int], Rates] | None:
    """Return the rates of a scheduler of ``torch.optim`` as a function of the step; else None."""
    return rates_of(inner) if isinstance(inner, LRScheduler) else None


class OptimizerState:
    """The state of θ's optimizer for the parameters that are trained now, and its rates.

    Raises:
        MetalossError: If there are no parameters.
    """

    def __init__(
        self, optimizer: Groups, function: Callable[[int], Rates] | None, params: Tensors
    ) -> None:
        self.optimizer, self._function = optimizer, function
        self.device = _device_of(params)
        self._state = self.optimizer.init(params)
        self.trained, self._parked = list(params), Parked()
        self._shapes = {name: value.shape for name, value in params.items()}

    @property
    def mean(self) -> Tensors:
        """The moving average of θ by name.

        Raises:
            MetalossError: If there is none.
        """
        if not self.optimizer.ema:
            raise MetalossError("this Learner has no moving average: make it with ema=0.999")
        return dict(self._state["mean"]["ema"])

    def follow(self, params: Tensors) -> None:
        """Adapt the state to the parameters that are trained now.

        Raises:
            MetalossError: If there are none, or if they were moved to another device.
        """
        device = _device_of(params)
        if device != self.device:
            raise MetalossError(
                f"the model was moved from {self.device} to {device}: make a new Learner"
            )
        shapes = {name: value.shape for name, value in params.items()}
        if shapes == self._shapes and list(params) == self.trained:
            return
        self._shapes = shapes
        self._parked |= self.optimizer.park(self._state, self.trained)
        self._state = self.optimizer.taken_up(self._state, params, self._parked)
        self.trained = list(params)

    def before(self, first: int, steps: int) -> Any:
        """Return the state for some steps and their rates; ``first`` is the first step's number."""
        if self._function is None:
            return self._state
        rates = [self._spread(self._function(first + k)) for k in range(steps)]
        old = self._state["lr"]
        return {**self._state, "lr": torch.tensor(rates, dtype=old.dtype, device=old.device)}

    def after(self, state: Any) -> None:
        """Store the state after these steps."""
        self._state = {**state, "lr": state["lr"][-1:]}

    def set_lr(self, lr: Rates | Callable[[int], Rates]) -> None:
        """Set the rates, or a function of the step that returns them; see `Learner.set_lr`."""
        if callable(lr):
            for one in self.optimizer.optimizers:
                schedule = getattr(one, "schedule", RateSchedule.constant)
                if schedule is not RateSchedule.constant:
                    raise MetalossError(
                        f"set_lr() got a function, but the optimizer has schedule={schedule.name}: "
                        "expected one of the two"
                    )
            self._spread(lr(0))
            self._function = lr
            return
        old = self._state["lr"]
        rates = torch.tensor([self._spread(lr)], dtype=old.dtype, device=old.device)
        self._function, self._state = None, {**self._state, "lr": rates}

    def saved(self) -> dict[str, Any]:
        """Return entries for ``Learner.state_dict``."""
        return {
            "optimizer": pytree.tree_leaves(self._state),
            "trained": list(self.trained),
            "parked": copied(self._parked),
        }

    def restored(self, state: dict[str, Any]) -> Any:
        """Return what `restore` needs, from a state dict.

        Raises:
            MetalossError: If it is of another optimizer or model.
        """
        return refilled(self._state, state["optimizer"]), copied(state.get("parked", {}))

    def restore(self, found: Any) -> None:
        """Go on from the result of `restored`."""
        self._state, self._parked = found

    def _spread(self, rates: Rates) -> list[float]:
        """Return one rate for each group."""
        count = len(self.optimizer.optimizers)
        try:
            given = torch.as_tensor(rates, dtype=torch.float64)
            found: list[float] = given.flatten().tolist() * (1 if given.dim() else count)
        except (TypeError, ValueError, RuntimeError):  # a text, None, lists of several lengths
            found = []
        if len(found) != count or not all(math.isfinite(one) and one >= 0 for one in found):
            more = f", or one for each of {count} groups" if count > 1 else ""
            raise MetalossError(f"lr={rates!r}: expected a number ≥ 0{more}")
        return found


def _device_of(params: Tensors) -> torch.device:
    if not params:
        raise MetalossError("the model has no parameters that require a gradient")
    return next(iter(params.values())).device
