"""How θ moves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from metaloss.types import Tensors


class InnerOptimizer(ABC):
    """How θ moves: a frozen description with a pure update, equal to ``torch.optim``'s."""

    @abstractmethod
    def init(self, params: Tensors) -> Any:
        """Return the state before the first step: a pytree of tensors."""

    @abstractmethod
    def update(self, grads: Tensors, state: Any, params: Tensors) -> tuple[Tensors, Any]:
        """Return the new parameters and state. Pure and differentiable in all its arguments.

        A parameter without an entry in ``grads`` is left alone, with its state, as ``torch.optim``
        does with one whose gradient is None.
        """
