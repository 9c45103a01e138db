"""The exact meta-gradient by an unroll through torchopt's functional door."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torchopt
from torch import Tensor

from metaloss.contracts import InnerOptimizer
from metaloss.inner.gradients import reached_by
from metaloss.inner.problem import InnerProblem, Tangents
from metaloss.meta_optimizers.graph import through_graph
from metaloss.meta_optimizers.outer import OuterRule
from metaloss.meta_optimizers.refusals import refused_politely
from metaloss.types import Batch, InnerState, MetaGradient, Tensors, Window


@dataclass(frozen=True, kw_only=True)
class TorchOpt(OuterRule):
    """Exact meta-gradient: the inner steps as a torchopt transformation, autograd back through all.

    The inner optimizer becomes a ``torchopt.base.GradientTransformation``, so that the numbers are
    those of every other exact engine (torchopt's own Adam is not differentiable where all gradients
    were zero).

    Cost of an online step, in forwards of the model: about 12, where plain training is 3; memory
    holds the activations of all steps of the unroll. The model and the loss need second derivatives
    in reverse mode, and no forward mode.

    Reference:
        Ren et al., "TorchOpt: An Efficient Library for Differentiable Optimization", JMLR 2023.
    """

    methods: ClassVar[tuple[Tangents, ...]] = (Tangents.reverse,)

    def meta_gradient(
        self, problem: InnerProblem, phi: Tensors, state: InnerState, window: Window
    ) -> MetaGradient:
        """Take K inner steps from ``state``; return d(task loss)/dφ there. See the contract."""
        with refused_politely("torchopt", lacks="double backward"):
            unroll = _FunctionalUnroll(problem, state)
            return through_graph(problem, phi, state.buffers, window, unroll)


def as_transformation(optimizer: InnerOptimizer) -> Any:
    """Return an inner optimizer as a ``torchopt.base.GradientTransformation``.

    Example:
        >>> import torch
        >>> from metaloss.inner import SGD
        >>> transformation = as_transformation(SGD(lr=0.5, momentum=0.0))
        >>> params = {"w": torch.tensor([2.0])}
        >>> state = transformation.init(params)
        >>> updates, state = transformation.update({"w": torch.ones(1)}, state, params=params)
        >>> torchopt.apply_updates(params, updates, inplace=False)
        {'w': tensor([1.5000])}
    """

    def update(
        updates: Tensors, state: Any, *, params: Tensors | None = None, inplace: bool = True
    ) -> tuple[Tensors, Any]:
        # Pure whatever ``inplace`` says: it allows the arguments to be overwritten, no more.
        assert params is not None, "this transformation needs the parameters"
        new, state = optimizer.update(updates, state, params)
        return {name: new[name] - value for name, value in params.items()}, state

    return torchopt.base.GradientTransformation(optimizer.init, update)


class _FunctionalUnroll:
    """θ and the optimizer's state as values that torchopt's functions renew."""

    def __init__(self, problem: InnerProblem, state: InnerState) -> None:
        self._problem = problem
        self._transformation = as_transformation(problem.optimizer)
        self.params = {name: p.detach().requires_grad_() for name, p in state.params.items()}
        self.optimizer = state.optimizer

    def predict(self, buffers: Tensors, batch: Batch, key: Tensor) -> tuple[Tensor, Tensors]:
        return self._problem.predict(self.params, buffers, batch, key)

    def descend(self, loss: Tensor) -> None:
        values = reached_by(loss, list(self.params.values()), create_graph=True)
        reached = zip(self.params, values, strict=True)
        updates, self.optimizer = self._transformation.update(
            {name: value for name, value in reached if value is not None},
            self.optimizer,
            params=self.params,
            inplace=False,
        )
        moved = torchopt.apply_updates(self.params, updates, inplace=False)
        self.params = {name: moved[name] for name in self.params}
