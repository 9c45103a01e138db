"""Inner steps taken, recorded and walked back through: what engines without a graph share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, ClassVar

import torch
from torch.utils import _pytree as pytree

from metaloss.errors import MetalossError
from metaloss.inner.gradients import filled
from metaloss.inner.problem import InnerProblem
from metaloss.inner.steps import as_replay_steps, take_steps
from metaloss.meta_optimizers.outer import OuterRule
from metaloss.types import (
    InnerState,
    Judgement,
    MetaGradient,
    ReplayStep,
    StepLosses,
    StoredStep,
    Tensors,
    Window,
)


class Checkpointing(Enum):
    """Which states of an unroll are kept to walk back over."""

    all = "all"
    sqrt = "sqrt"


@dataclass(frozen=True, kw_only=True)
class ReverseUnroll(OuterRule):
    r"""An engine that stores the θ_k of the unroll and goes back over them, one step at a time.

    With θ' = U(g, θ), g = ∇_θ L_φ(θ) and v = ∇ L_task(θ'), let ḡ be the pullback of v through U.
    The step's share of the meta-gradient is ∂/∂φ ⟨∇_θ L_φ, ḡ⟩, and the adjoint of θ is what comes
    through U directly plus the Hessian-vector product ∇²_θθ L_φ ḡ. An engine supplies these two
    products; memory holds the activations of one step. Buffers count as constants.

    Of the K states (θ_k, buffers, optimizer) ``checkpointing=sqrt`` keeps one in ⌈√K⌉ and those of
    the last segment. The others are computed again from the one before them, a segment at a time,
    by the inner step that computed them first: the same numbers out of O(√K) states, for up to one
    more inner step a step.

    The share of φ and the curvature are means over the rows of the training batch. ``rows=0.25``
    computes both from a random quarter of each batch. This estimate is unbiased under SGD, whose
    update is linear in the gradient. The quarter is a block of rows that begins anywhere, drawn
    anew at each step. Inner steps see all rows.

    Reference:
        Chen, Xu, Zhang & Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016,
        arXiv 1604.06174: there for layers, here for steps.
    """

    stacks: ClassVar[bool] = True
    compiles: ClassVar[bool] = True

    checkpointing: Checkpointing = field(
        default=Checkpointing.all,
        metadata={
            "help": "states of an unroll kept in memory: all, or √K of K (recompute the rest)"
        },
    )

    rows: float = field(
        default=1.0,
        metadata={"help": "share of the training rows that the meta-gradient is computed from"},
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not 0 < self.rows <= 1:
            raise MetalossError(f"meta_optimizer.rows={self.rows}: expected a number in (0, 1]")

    @abstractmethod
    def mixed_vjp(
        self, problem: InnerProblem, phi: Tensors, step: StoredStep, direction: Tensors
    ) -> Tensors:
        """Return ∂/∂φ ⟨∇_θ L_φ, direction⟩ at the step's θ."""

    @abstractmethod
    def hvp_and_mixed_vjp(
        self, problem: InnerProblem, phi: Tensors, step: StoredStep, direction: Tensors
    ) -> tuple[Tensors, Tensors]:
        """Return (∇²_θθ L_φ · direction, ∂/∂φ ⟨∇_θ L_φ, direction⟩) at the step's θ."""

    def keeps(self, index: int, unroll: int) -> bool:
        """Return whether the state before step ``index`` of an unroll is kept in its record."""
        if self.checkpointing is Checkpointing.all:
            return True
        length = math.isqrt(unroll - 1) + 1  # ⌈√K⌉
        # The last segment is the first to be walked back over: nothing would be saved there.
        return index % length == 0 or index // length == (unroll - 1) // length

    def meta_gradient(
        self, problem: InnerProblem, phi: Tensors, state: InnerState, window: Window
    ) -> MetaGradient:
        """Take K inner steps from ``state``; return d(task loss)/dφ there. See the contract."""
        unroll = as_replay_steps(window.batches, window.keys)
        keeps = partial(self.keeps, unroll=len(unroll))
        state, records, inner, train_task = take_steps(problem, phi, state, unroll, keeps)
        adjoint, meta_task = problem.judge(state, window.meta_batch, window.meta_key)
        gradient = self._walk(problem, phi, records, adjoint, state.buffers)
        return MetaGradient(gradient, state, StepLosses(inner, train_task, meta_task))

    def gradient_back(
        self,
        problem: InnerProblem,
        phi: Tensors,
        steps: Sequence[StoredStep | ReplayStep],
        judgement: Judgement,
    ) -> Tensors:
        """Return d(task loss)/dφ through steps that were taken: what was kept is not run again."""
        return self._walk(problem, phi, list(steps), judgement.adjoint, judgement.buffers)

    def _walk(
        self,
        problem: InnerProblem,
        phi: Tensors,
        steps: list[StoredStep | ReplayStep],
        adjoint: Tensors,
        after: Tensors,
    ) -> Tensors:
        """Return the sum of the steps' shares of d(task loss)/dφ, from the last θ's adjoint.

        ``after`` are the buffers after the last step.

        Records are taken off the list, so that they go when they are done with.
        """
        total = {name: torch.zeros_like(value) for name, value in phi.items()}
        state_adjoint: Any = None
        while steps:
            segment = _last_segment(problem, phi, steps)
            while segment:
                step = segment.pop()
                first = not segment and not steps
                if self.rows < 1:
                    sample = problem.sampled(step, after, self.rows)
                    step, after = step._replace(sample=sample), step.state.buffers
                adjoint, state_adjoint, share = problem.run(
                    self._back, phi, step, adjoint, state_adjoint, first
                )
                total = {name: total[name] + share[name] for name in total}
        return total

    def _back(
        self,
        problem: InnerProblem,
        phi: Tensors,
        step: StoredStep,
        adjoint: Tensors,
        state_adjoint: Any,
        first: bool,
    ) -> tuple[Tensors, Any, Tensors]:
        """Go one step back: return the adjoints before it, and its share of φ.

        Nothing lies before the first step: its adjoints are not needed.
        """
        direct, direction, state_adjoint = pull_update(problem, step, adjoint, state_adjoint)
        direction = filled(direction, step.state.params)
        if first:
            return direct, state_adjoint, self.mixed_vjp(problem, phi, step, direction)
        curved, share = self.hvp_and_mixed_vjp(problem, phi, step, direction)
        return {name: direct[name] + curved[name] for name in direct}, state_adjoint, share


def _last_segment(
    problem: InnerProblem, phi: Tensors, steps: list[StoredStep | ReplayStep]
) -> list[StoredStep]:
    """Take a kept step and all that follow it off the list; return them with their states."""
    after: list[ReplayStep] = []
    while not isinstance(kept := steps.pop(), StoredStep):
        after.insert(0, kept)
    if not after:
        return [kept]
    unroll = [ReplayStep(kept.batch, kept.key), *after]
    records = take_steps(problem, phi, kept.state, unroll).records
    return [record for record in records if isinstance(record, StoredStep)]


def pull_update(
    problem: InnerProblem, step: StoredStep, adjoint: Tensors, state_adjoint: Any
) -> tuple[Tensors, Tensors, Any]:
    """Pull (θ', state')'s adjoint through the optimizer's update, to θ, ∇_θ L and its state."""
    leaves, spec = pytree.tree_flatten((step.state.params, step.grads, step.state.optimizer))
    moving = [index for index, leaf in enumerate(leaves) if leaf.is_floating_point()]
    leaves = [leaf.detach() for leaf in leaves]
    for index in moving:
        leaves[index].requires_grad_()
    with torch.enable_grad():
        params, grads, optimizer = pytree.tree_unflatten(leaves, spec)
        outputs = pytree.tree_leaves(problem.update(grads, optimizer, params))
    cotangents = pytree.tree_leaves(adjoint)
    if state_adjoint is None:
        outputs = outputs[: len(cotangents)]
    else:
        cotangents = cotangents + pytree.tree_leaves(state_adjoint)
    kept = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
    pulled = torch.autograd.grad(
        [output for output, _ in kept],
        [leaves[index] for index in moving],
        [cotangent for _, cotangent in kept],
        allow_unused=True,
        materialize_grads=True,
    )
    # Integer leaves (the step counter) get zeros that no one reads, so that the trees match.
    result = [torch.zeros_like(leaf) for leaf in leaves]
    for index, value in zip(moving, pulled, strict=True):
        result[index] = value
    return pytree.tree_unflatten(result, spec)
