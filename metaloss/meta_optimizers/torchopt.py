"""The exact meta-gradient, by an unroll with torchopt's functional interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torchopt
from torch import Tensor

from metaloss.contracts import InnerOptimizer
from metaloss.inner.gradients import reached_by
from metaloss.inner.problem import InnerProblem, Tangents
from metaloss.meta_optimizers.engine import Engine
from metaloss.meta_optimizers.graph import through_graph
from metaloss.meta_optimizers.refusals import refused_politely
from metaloss.types import Batch, InnerState, MetaGradient, RowSample, Tensors, Window


@dataclass(frozen=True, kw_only=True)
class TorchOpt(Engine):
    """Exact meta-gradient: autograd through inner steps of a torchopt transformation.

    The inner optimizer becomes a ``torchopt.base.GradientTransformation``, so that the results
    equal those of the other exact engines. (torchopt's own Adam is not differentiable if all
    gradients were zero.)

    Cost of an online step, in forward passes of the model: about 12; a plain step takes 3. Memory
    holds the activations of all steps of the unroll. The model and the loss need second derivatives
    in reverse mode, and no forward mode.

    Reference:
        Ren et al., "TorchOpt: An Efficient Library for Differentiable Optimization", JMLR 2023.

    Example:
        >>> TorchOpt(lr=0.01).exact
        True
    """

    methods: ClassVar[tuple[Tangents, ...]] = (Tangents.reverse,)

    def meta_gradient(
        self, problem: InnerProblem, phi: Tensors, state: InnerState, window: Window
    ) -> MetaGradient:
        """Take K inner steps and return d(task loss)/dφ; see the contract."""
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
        # ``inplace`` allows to overwrite the arguments, but does not require it.
        assert params is not None, "this transformation needs the parameters"
        new, state = optimizer.update(updates, state, params)
        return {name: new[name] - value for name, value in params.items()}, state

    return torchopt.base.GradientTransformation(optimizer.init, update)


class _FunctionalUnroll:
    """θ and the optimizer's state, updated by torchopt's functions."""

    def __init__(self, problem: InnerProblem, state: InnerState) -> None:
        self._problem = problem
        self._transformation = as_transformation(problem.optimizer)
        self.params = {name: p.detach().requires_grad_() for name, p in state.params.items()}
        self.optimizer = state.optimizer

    def predict(
        self, buffers: Tensors, batch: Batch, key: Tensor, sample: RowSample | None = None
    ) -> tuple[Tensor, Tensors]:
        return self._problem.predict(self.params, buffers, batch, key, sample)

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
