"""The exact meta-gradient, by an unroll with the library higher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import higher
import torch
from torch import Tensor, nn

from metaloss.inner.problem import InnerProblem, Tangents
from metaloss.meta_optimizers.engine import Engine
from metaloss.meta_optimizers.graph import through_graph
from metaloss.meta_optimizers.refusals import refused_politely
from metaloss.types import Batch, InnerState, MetaGradient, RowSample, Tensors, Window


@dataclass(frozen=True, kw_only=True)
class Higher(Engine):
    """Exact meta-gradient: autograd through inner steps in ``higher.innerloop_ctx``.

    higher patches a small module that has θ and calls the network as a function. So tied weights,
    shared modules, hooks, buffers, dropout keys and autocast work as with other engines. The inner
    optimizer is registered by ``higher.register_optim``; its state is passed in and returned, which
    higher's own optimizers do not do.

    Cost of an online step, in forward passes of the model: about 12; a plain step takes 3. Memory
    holds the activations of all steps of the unroll. The model and the loss need second derivatives
    in reverse mode, and no forward mode.

    Reference:
        Grefenstette et al., "Generalized Inner Loop Meta-Learning", 2019, arXiv 1910.01727.

    Example:
        >>> Higher(lr=0.01).exact
        True
    """

    methods: ClassVar[tuple[Tangents, ...]] = (Tangents.reverse,)

    def meta_gradient(
        self, problem: InnerProblem, phi: Tensors, state: InnerState, window: Window
    ) -> MetaGradient:
        """Take K inner steps and return d(task loss)/dφ; see the contract."""
        door = _Door(state.params)
        rule = _Rule(door.parameters())
        # ``override`` passes values to the optimizer, as lists with one entry for each group.
        settings = {"problem": [problem], "names": [door.names], "carried": [state.optimizer]}
        with (
            refused_politely("higher", lacks="double backward"),
            higher.innerloop_ctx(door, rule, override=settings) as (patched, stepper),
        ):
            unroll = _PatchedUnroll(problem, patched, stepper)
            answer = through_graph(problem, phi, state.buffers, window, unroll)
        door.release()
        return answer


class _Door(nn.Module):
    """θ as the parameters of one flat module, for higher to patch."""

    def __init__(self, params: Tensors) -> None:
        super().__init__()
        self.names = list(params)
        for index, value in enumerate(params.values()):
            self.register_parameter(f"p{index}", nn.Parameter(value.detach()))

    def forward(
        self,
        problem: InnerProblem,
        buffers: Tensors,
        batch: Batch,
        key: Tensor,
        sample: RowSample | None,
    ) -> tuple[Tensor, Tensors]:
        params = {name: getattr(self, f"p{index}") for index, name in enumerate(self.names)}
        return problem.predict(params, buffers, batch, key, sample)

    def release(self) -> None:
        """Release θ, because higher's class keeps this object until garbage collection."""
        for index in range(len(self.names)):
            delattr(self, f"p{index}")


class _Rule(torch.optim.Optimizer):
    """The class that higher knows inner optimizers by; it takes no steps itself."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})


class _DifferentiableRule(higher.optim.DifferentiableOptimizer):
    """The update of an inner optimizer, as higher's differentiable counterpart of ``_Rule``."""

    def _update(self, grouped_grads: list[list[Tensor | None]], **kwargs: Any) -> None:
        (group,), (grads,) = self.param_groups, grouped_grads
        params = dict(zip(group["names"], group["params"], strict=True))
        # Embeddings may have sparse gradients; an unused parameter has none.
        given = {
            name: grad.to_dense() if grad.is_sparse else grad
            for name, grad in zip(params, grads, strict=True)
            if grad is not None
        }
        optimizer = group["problem"].optimizer
        new, group["carried"] = optimizer.update(given, group["carried"], params)
        # The gradient of the next step is that at its own θ. If a parameter that does not move
        # were the same tensor, its gradient would also go through the steps before.
        group["params"] = [
            new[name].clone() if new[name] is old else new[name] for name, old in params.items()
        ]


higher.register_optim(_Rule, _DifferentiableRule)


class _PatchedUnroll:
    """θ in higher's patched module, and the optimizer's state in its stepper."""

    def __init__(self, problem: InnerProblem, patched: Any, stepper: Any) -> None:
        self._problem, self._patched, self._stepper = problem, patched, stepper

    @property
    def params(self) -> Tensors:
        return dict(zip(self._patched.names, self._patched.fast_params, strict=True))

    @property
    def optimizer(self) -> Any:
        return self._stepper.param_groups[0]["carried"]

    def predict(
        self, buffers: Tensors, batch: Batch, key: Tensor, sample: RowSample | None = None
    ) -> tuple[Tensor, Tensors]:
        return self._patched(self._problem, buffers, batch, key, sample)

    def descend(self, loss: Tensor) -> None:
        if not loss.requires_grad:
            # higher needs a graph, even if the loss depends on no parameter.
            loss = loss + torch.zeros_like(loss, requires_grad=True)
        self._stepper.step(loss)
