"""What updates φ: the contract of an engine for the meta-gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from metaloss.options import Options
from metaloss.types import InnerState, MetaGradient, Tensors, Window

if TYPE_CHECKING:
    from metaloss.inner.problem import InnerProblem


class MetaOptimizer(Options, group="meta_optimizer"):
    """What updates φ: an engine with an update rule, or a search without gradients."""


class GradientMetaOptimizer(MetaOptimizer, ABC):
    """An engine: a method that computes the meta-gradient d(task loss)/dφ.

    Derive from `metaloss.meta_optimizers.engine.Engine`, which adds the update rule of φ.

    Attributes:
        exact: Whether the result is the derivative itself, and not an approximation of it.

    Example:
        >>> from metaloss import Mixed
        >>> isinstance(Mixed(), GradientMetaOptimizer), Mixed().exact
        (True, True)
    """

    exact: bool = True

    @abstractmethod
    def meta_gradient(
        self, problem: InnerProblem, phi: Tensors, state: InnerState, window: Window
    ) -> MetaGradient:
        """Take K inner steps and return the derivative of the task loss after them in φ.

        The method is pure: it changes no argument and no global state. All results are detached.

        Args:
            problem: The functions that an inner step is made of.
            phi: φ by name.
            state: θ, buffers and the inner optimizer's state before the first step.
            window: The K training batches and the meta-batch.

        Returns:
            The gradient, of the names and shapes of ``phi``; the state after the K steps; the
            losses of the steps and of the meta-batch.

        Raises:
            UnsupportedError: If this engine cannot do it; the message names one that can.
        """
