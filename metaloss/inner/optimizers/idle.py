"""Parameters that skip steps: unused in a step, frozen for some time, or new.

``torch.optim`` counts the steps of each parameter, and skips a parameter without a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metaloss.errors import MetalossError
from metaloss.types import Tensors

# For each parameter: its entries in the optimizer's state, and its number of steps.
Parked = dict[str, dict[str, Tensor]]
_COUNT = "steps"


def no_idle_steps(params: Tensors) -> Tensor:
    """Return the number of skipped steps of each parameter before the first step: (P,) zeros."""
    device = next(iter(params.values())).device
    return torch.zeros(len(params), dtype=torch.int64, device=device)


def own_counts(
    step: Tensor, idle: Tensor, grads: Tensors, params: Tensors
) -> tuple[Tensor, Tensor]:
    """Return the number of steps of each parameter (P,) int64, and ``idle`` after this step.

    Args:
        step: The number of steps before this one, 0-d.
        idle: (P,) number of skipped steps of each parameter.
        grads: The gradients of this step. A parameter without one skips it.
        params: θ by name.
    """
    counts = step - idle
    if len(grads) < len(params):
        # Made on the device, because a list of numbers would have to be copied there.
        here, out = torch.zeros_like(step), torch.ones_like(step)
        idle = idle + torch.stack([here if name in grads else out for name in params])
    return counts, idle


def by_name(values: Tensor, params: Tensors) -> Tensors:
    """Return the entries of a vector (P,) by the names of ``params``."""
    return dict(zip(params, values.unbind(), strict=True))


def park(state: Any, names: list[str]) -> Parked:
    """Return the part of an optimizer's state that belongs to each parameter.

    Args:
        state: ``step``, dictionaries by parameter, and perhaps ``idle``.
        names: The parameters, in the order of ``idle``.

    Raises:
        MetalossError: If the state has another structure.
    """
    if not isinstance(state, dict) or "step" not in state:
        raise MetalossError(
            "parameters were frozen or unfrozen, but the inner optimizer's state has no entries by "
            "parameter: freeze them before the Learner is made, or use a built-in optimizer"
        )
    parked: Parked = {}
    for number, name in enumerate(names):
        own = {key: value[name] for key, value in state.items() if isinstance(value, dict)}
        if "idle" in state:
            own[_COUNT] = state["step"] - state["idle"][number]
        parked[name] = own
    return parked


def taken_up(init: Callable[[Tensors], Any], state: Any, params: Tensors, parked: Parked) -> Any:
    """Return an optimizer's state for ``params``: the parked entries, and new ones for the others.

    Args:
        init: Returns the optimizer's state before the first step.
        state: Its state so far, for other parameters.
        params: θ by name.
        parked: The result of `park`. Entries of another shape are not used.
    """
    known = {
        name: parked[name]
        for name, value in params.items()
        if name in parked
        and all(v.shape == value.shape for k, v in parked[name].items() if k != _COUNT)
    }
    step, taken = state["step"], {}
    for key, value in init(params).items():
        if key == "step":
            taken[key] = step
        elif key == "idle":
            never = torch.zeros_like(step)
            taken[key] = torch.stack(
                [step - known.get(name, {}).get(_COUNT, never) for name in params]
            )
        elif isinstance(value, dict):
            taken[key] = {name: known.get(name, {}).get(key, own) for name, own in value.items()}
        else:
            taken[key] = value
    return taken
