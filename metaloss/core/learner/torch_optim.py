"""Optimizers and schedulers of ``torch.optim``, as inner optimizers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from metaloss.errors import MetalossError
from metaloss.inner.optimizers.adam import Adam, AdamW
from metaloss.inner.optimizers.groups import Groups
from metaloss.inner.optimizers.param_groups import grouped
from metaloss.inner.optimizers.rates import Rated
from metaloss.inner.optimizers.rmsprop import RMSprop
from metaloss.inner.optimizers.sgd import SGD

_SAME = ("lr", "weight_decay")
_OPTIONS: dict[type, tuple[type[Rated], tuple[str, ...]]] = {
    torch.optim.SGD: (SGD, (*_SAME, "momentum", "dampening", "nesterov")),
    torch.optim.Adam: (Adam, (*_SAME, "betas", "eps")),
    torch.optim.AdamW: (AdamW, (*_SAME, "betas", "eps")),
    torch.optim.RMSprop: (RMSprop, (*_SAME, "alpha", "eps", "momentum", "centered")),
}
# They choose kernels and do not change the numbers; or they are names.
_IGNORED = {"foreach", "fused", "capturable", "differentiable", "params", "param_names"}
# What schedulers note in a group.
_NOTED = {"initial_lr", "max_lr", "min_lr", "swa_lr", "base_momentum", "max_momentum"}


def translated(optimizer: torch.optim.Optimizer, model: nn.Module) -> Groups:
    """Return the inner optimizer that equals a ``torch.optim`` optimizer, with its groups.

    Parameters of the model that it has not do not move.

    Raises:
        MetalossError: If there is no equal one; the message names the option or class.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> groups = translated(torch.optim.Adam(model.parameters(), lr=0.01), model)
        >>> groups.names, groups.optimizers[0].lr
        ((('weight', 'bias'),), 0.01)
    """
    kind = type(optimizer)
    name = f"torch.optim.{kind.__name__}"
    if kind not in _OPTIONS:
        known = ", ".join(one.__name__ for one in _OPTIONS)
        raise MetalossError(
            f"inner is a {kind.__module__}.{kind.__name__}, which has no equal here: expected "
            f"{known} of torch.optim, or an inner optimizer, such as SGD(lr=0.1)"
        )
    if optimizer.state:
        raise MetalossError(
            f"inner is a {name} that has taken steps already, and its state is not taken over: "
            "pass a new one"
        )
    groups = optimizer.param_groups
    return grouped(
        model,
        [group["params"] for group in groups],
        [_optimizer(name, kind, group) for group in groups],
    )


def refuse_scheduler(scheduler: LRScheduler) -> None:
    """Raise if a scheduler's rates do not depend on the step alone, or not only rates change."""
    if isinstance(scheduler, ReduceLROnPlateau):
        raise MetalossError(
            "inner is a ReduceLROnPlateau, whose rate depends on a metric: pass its optimizer, and "
            "call learner.set_lr() when the metric stalls"
        )
    for one in (scheduler, *getattr(scheduler, "_schedulers", ())):
        if getattr(one, "cycle_momentum", False):
            raise MetalossError(
                f"inner is a {type(one).__name__} that changes the momentum too: expected "
                "cycle_momentum=False"
            )


def rates_of(scheduler: LRScheduler) -> Callable[[int], list[float]]:
    """Return a scheduler's rates as a function of the step: one for each group.

    The scheduler is copied and stepped as far as needed; the user's own object does not change.

    Example:
        >>> optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.5)
        >>> rates_of(torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.1))(3)
        [0.05]
    """
    own = _copied(scheduler)
    rates = [[float(value) for value in own.get_last_lr()]]

    def at(step: int) -> list[float]:
        while len(rates) <= step:
            with warnings.catch_warnings():
                # The optimizer of the copy takes no steps.
                warnings.simplefilter("ignore", UserWarning)
                try:
                    own.step()
                except ValueError as error:  # OneCycleLR ends
                    raise MetalossError(
                        f"inner is a {type(own).__name__} without a rate for step {step}: {error}"
                    ) from error
            rates.append([float(group["lr"]) for group in own.optimizer.param_groups])
        return rates[step]

    return at


def _optimizer(name: str, kind: type, group: dict[str, Any]) -> Rated:
    ours, known = _OPTIONS[kind]
    options: dict[str, Any] = {}
    for option, value in group.items():
        if option in known:
            options[option] = value.item() if isinstance(value, Tensor) else value
        elif option == "decoupled_weight_decay":
            # Adam with this option is AdamW.
            ours = AdamW if value else ours
        elif option in _IGNORED | _NOTED:
            continue
        elif value:
            raise MetalossError(
                f"inner is a {name} with {option}={value}, which has no equal here: expected it "
                f"without {option}"
            )
    if "betas" in options:
        options["beta1"], options["beta2"] = map(float, options.pop("betas"))
    if not options["lr"] and group.get("initial_lr") is not None:
        # A warm-up begins at 0. The rates come from the scheduler.
        options["lr"] = float(group["initial_lr"]) or 1.0
    return ours(**options)


def _copied(scheduler: LRScheduler) -> LRScheduler:
    """Return a copy of a scheduler, without copies of the parameters."""
    params = [value for group in scheduler.optimizer.param_groups for value in group["params"]]
    small = torch.zeros(0)
    return copy.deepcopy(scheduler, {id(value): small for value in params})
