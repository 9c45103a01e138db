"""The contract of an inner optimizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from metaloss.options import Options
from metaloss.types import Tensors


class InnerOptimizer(Options, ABC, group="inner"):
    """How θ is updated: options, and a pure update function.

    Example:
        >>> import torch
        >>> class Halve(InnerOptimizer):
        ...     def init(self, params):
        ...         return {}
        ...     def update(self, grads, state, params):
        ...         return {**params, **{n: params[n] - 0.5 * g for n, g in grads.items()}}, state
        >>> params, grads = {"w": torch.tensor(2.0)}, {"w": torch.tensor(1.0)}
        >>> Halve().update(grads, {}, params)[0]
        {'w': tensor(1.5000)}
    """

    @abstractmethod
    def init(self, params: Tensors) -> Any:
        """Return the state before the first step: a pytree of tensors."""

    @abstractmethod
    def update(self, grads: Tensors, state: Any, params: Tensors) -> tuple[Tensors, Any]:
        """Return the new parameters and the new state.

        The function is pure, and differentiable in all of its arguments. A parameter without an
        entry in ``grads`` does not change, nor does its state, as in ``torch.optim`` for a gradient
        of None.

        Args:
            grads: The gradient in θ by name.
            state: The state before the step.
            params: θ by name.
        """
