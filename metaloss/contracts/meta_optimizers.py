"""How φ moves: an engine for the meta-gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from metaloss.types import InnerState, MetaGradient, Tensors, Window

if TYPE_CHECKING:
    from metaloss.inner.problem import InnerProblem


class MetaOptimizer:
    """How φ moves: by a meta-gradient and an outer rule, or by a search without gradients."""


class GradientMetaOptimizer(MetaOptimizer, ABC):
    """An engine for the meta-gradient. The outer rule is shared: ``meta_optimizers/outer.py``."""

    exact: bool = True

    @abstractmethod
    def meta_gradient(
        self, problem: InnerProblem, phi: Tensors, state: InnerState, window: Window
    ) -> MetaGradient:
        """Take K inner steps from ``state`` and return d(task loss)/dφ at the state reached.

        Pure: no argument is changed, no global state is touched, all results are detached.

        Raises:
            UnsupportedError: If this engine cannot do it; the message names one that can.
        """
