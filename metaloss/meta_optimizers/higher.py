"""The exact meta-gradient by an unroll through higher's patched modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import higher
import torch
from torch import Tensor, nn

from metaloss.inner.problem import InnerProblem, Tangents
from metaloss.meta_optimizers.graph import through_graph
from metaloss.meta_optimizers.outer import OuterRule
from metaloss.meta_optimizers.refusals import refused_politely
from metaloss.types import Batch, InnerState, MetaGradient, Tensors, Window


@dataclass(frozen=True, kw_only=True)
class Higher(OuterRule):
    """Exact meta-gradient: the inner steps through ``higher.innerloop_ctx``, autograd back through.

    What higher patches is a thin module that holds θ and calls the base model as a function, so
    that tied weights, shared modules, hooks, buffers, dropout keys and autocast are what they are
    under the other engines. The inner optimizer enters by ``higher.register_optim``; its state is
    read from the given one and handed back, which higher's own optimizers do not do.

    Cost of an online step, in forwards of the model: about 12, where plain training is 3; memory
    holds the activations of all steps of the unroll. The model and the loss need second derivatives
    in reverse mode, and no forward mode.

    Reference:
        Grefenstette et al., "Generalized Inner Loop Meta-Learning", 2019, arXiv 1910.01727.
    """

    methods: ClassVar[tuple[Tangents, ...]] = (Tangents.reverse,)

    def meta_gradient(
        self, problem: InnerProblem, phi: Tensors, state: InnerState, window: Window
    ) -> MetaGradient:
        """Take K inner steps from ``state``; return d(task loss)/dφ there. See the contract."""
        door = _Door(state.params)
        rule = _Rule(door.parameters())
        # Settings that are tensors enter by ``override``, as lists with one entry a group.
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
    """θ as the parameters of one flat module, which higher can patch without surprises."""

    def __init__(self, params: Tensors) -> None:
        super().__init__()
        self.names = list(params)
        for index, value in enumerate(params.values()):
            self.register_parameter(f"p{index}", nn.Parameter(value.detach()))

    def forward(
        self, problem: InnerProblem, buffers: Tensors, batch: Batch, key: Tensor
    ) -> tuple[Tensor, Tensors]:
        params = {name: getattr(self, f"p{index}") for index, name in enumerate(self.names)}
        return problem.predict(params, buffers, batch, key)

    def release(self) -> None:
        """Let go of θ: the class that higher makes keeps this object until garbage is collected."""
        for index in range(len(self.names)):
            delattr(self, f"p{index}")


class _Rule(torch.optim.Optimizer):
    """What higher knows our inner optimizers by; never stepped itself."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})


class _DifferentiableRule(higher.optim.DifferentiableOptimizer):
    """An inner optimizer's pure update, as higher's differentiable counterpart of ``_Rule``."""

    def _update(self, grouped_grads: list[list[Tensor | None]], **kwargs: Any) -> None:
        (group,), (grads,) = self.param_groups, grouped_grads
        params = dict(zip(group["names"], group["params"], strict=True))
        # Embeddings may have sparse gradients; a parameter that is not used has none.
        given = {
            name: grad.to_dense() if grad.is_sparse else grad
            for name, grad in zip(params, grads, strict=True)
            if grad is not None
        }
        optimizer = group["problem"].optimizer
        new, group["carried"] = optimizer.update(given, group["carried"], params)
        group["params"] = [new[name] for name in params]


higher.register_optim(_Rule, _DifferentiableRule)


class _PatchedUnroll:
    """θ in the hands of higher's patched module, the optimizer's state in those of its stepper."""

    def __init__(self, problem: InnerProblem, patched: Any, stepper: Any) -> None:
        self._problem, self._patched, self._stepper = problem, patched, stepper

    @property
    def params(self) -> Tensors:
        return dict(zip(self._patched.names, self._patched.fast_params, strict=True))

    @property
    def optimizer(self) -> Any:
        return self._stepper.param_groups[0]["carried"]

    def predict(self, buffers: Tensors, batch: Batch, key: Tensor) -> tuple[Tensor, Tensors]:
        return self._patched(self._problem, buffers, batch, key)

    def descend(self, loss: Tensor) -> None:
        if not loss.requires_grad:
            # higher asks autograd for a gradient, also of a loss that depends on nothing.
            loss = loss + torch.zeros_like(loss, requires_grad=True)
        self._stepper.step(loss)
