"""Inner steps with records, and the pass back through them, for engines without a graph."""

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

from metaloss.errors import check_range
from metaloss.inner.gradients import filled
from metaloss.inner.problem import InnerProblem
from metaloss.inner.steps import take_steps
from metaloss.meta_optimizers.engine import Engine
from metaloss.types import (
    InnerState,
    MetaGradient,
    MetaPass,
    ReplayStep,
    StoredStep,
    Tensors,
    Window,
)


class Checkpointing(Enum):
    """Which states of an unroll are kept for the backward pass."""

    all = "all"
    sqrt = "sqrt"


@dataclass(frozen=True, kw_only=True)
class ReverseUnroll(Engine):
    r"""An engine that stores the θ_k of the unroll and differentiates it one step at a time.

    Let θ' = U(g, θ) be the update with g = ∇_θ L_φ(θ), v = ∇ L_task(θ') and ḡ = (∂U/∂g)ᵀ v. The
    step's term of the meta-gradient is ∂/∂φ ⟨∇_θ L_φ, ḡ⟩. The adjoint of θ is (∂U/∂θ)ᵀ v plus the
    Hessian-vector product ∇²_θθ L_φ ḡ. An engine computes these two products. Memory holds the
    activations of one step. Buffers count as constants.

    With ``checkpointing=sqrt``, every ⌈√K⌉-th of the K states (θ_k, buffers, optimizer) is kept,
    and those of the last segment. The others are computed again, segment by segment, with the same
    results. So O(√K) states are kept, and each inner step is computed at most twice.

    Both products are means over the rows of the training batch. ``rows=0.25`` computes them from a
    random quarter of each batch. The estimate is unbiased for every optimizer: inner steps use all
    rows, and the step back is linear in the adjoint. The quarter is a contiguous block of rows with
    a random start, drawn again at each step.

    Reference:
        Chen, Xu, Zhang & Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016,
        arXiv 1604.06174 (for layers; here for steps).
    """

    stacks: ClassVar[bool] = True
    compiles: ClassVar[bool] = True

    checkpointing: Checkpointing = field(
        default=Checkpointing.all,
        metadata={"help": "states of an unroll to keep in memory: all, or sqrt (√K of K)"},
    )

    rows: float = field(
        default=1.0,
        metadata={"help": "share of the training rows that the meta-gradient is computed from"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("meta_optimizer.rows", self.rows, 0 < self.rows <= 1, "a number in (0, 1]")

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
        """Return whether the state before step ``index`` of an unroll is kept."""
        if self.checkpointing is Checkpointing.all:
            return True
        length = math.isqrt(unroll - 1) + 1  # ⌈√K⌉
        # The backward pass begins with the last segment, so its states are needed at once.
        return index % length == 0 or index // length == (unroll - 1) // length

    def meta_gradient(
        self, problem: InnerProblem, phi: Tensors, state: InnerState, window: Window
    ) -> MetaGradient:
        """Take K inner steps and return d(task loss)/dφ; see the contract."""
        keeps = partial(self.keeps, unroll=len(window.batches))
        state, records, losses, notes = take_steps(problem, phi, state, window.steps, keeps)
        adjoint, meta_task = problem.task_gradient(state, window.meta_batch, window.meta_key)
        meta_pass = MetaPass(
            window.meta_batch, window.meta_key, adjoint, state.buffers, window.points
        )
        gradient = self._walk(problem, phi, records, meta_pass)
        return MetaGradient(gradient, state, losses._replace(meta_task=meta_task), notes)

    def gradient_back(
        self,
        problem: InnerProblem,
        phi: Tensors,
        steps: Sequence[StoredStep | ReplayStep],
        meta_pass: MetaPass,
    ) -> Tensors:
        """Return d(task loss)/dφ through steps that were taken already, from their records."""
        return self._walk(problem, phi, list(steps), meta_pass)

    def _walk(
        self,
        problem: InnerProblem,
        phi: Tensors,
        steps: list[StoredStep | ReplayStep],
        meta_pass: MetaPass,
    ) -> Tensors:
        """Return d(task loss)/dφ, the sum of all steps' terms, from the adjoint of the last θ.

        The adjoint is linear in the task losses: on the way back, the gradient of each earlier one
        is added at its place. Records are removed from the list after use, so that their memory is
        freed.
        """
        adjoint, after = meta_pass.adjoint, meta_pass.buffers
        points = {point.after: point for point in meta_pass.points}
        total = {name: torch.zeros_like(value) for name, value in phi.items()}
        state_adjoint: Any = None
        while steps:
            segment = _last_segment(problem, phi, steps)
            while segment:
                step = segment.pop()
                begun, place = step.state, len(steps) + len(segment)
                first = place == 0
                if self.rows < 1:
                    sample = problem.sampled(step, after, self.rows)
                    step, after = step._replace(sample=sample), step.state.buffers
                adjoint, state_adjoint, share = problem.run(
                    self._back, phi, step, adjoint, state_adjoint, first
                )
                total = {name: total[name] + share[name] for name in total}
                if place in points:
                    _, weight, batch, key = points[place]
                    slope, _ = problem.task_gradient(begun, batch, key)
                    adjoint = {name: adjoint[name] + weight * slope[name] for name in adjoint}
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
        """Go one step back: return the adjoints before it, and its term of the meta-gradient.

        Before the first step, the adjoints are not needed.
        """
        direct, direction, state_adjoint = pull_update(problem, step, adjoint, state_adjoint)
        direction = filled(direction, step.state.params)
        if first:
            return direct, state_adjoint, problem.summed(self.mixed_vjp, phi, step, direction)
        curved, share = problem.summed(self.hvp_and_mixed_vjp, phi, step, direction)
        return {name: direct[name] + curved[name] for name in direct}, state_adjoint, share


def _last_segment(
    problem: InnerProblem, phi: Tensors, steps: list[StoredStep | ReplayStep]
) -> list[StoredStep]:
    """Remove the last segment from the list; return its steps with their states."""
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
    """Return the adjoints of θ, ∇_θ L and the optimizer's state from those after the update."""
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
    # Integer leaves (the step counter) get zeros, so that the trees match.
    result = [torch.zeros_like(leaf) for leaf in leaves]
    for index, value in zip(moving, pulled, strict=True):
        result[index] = value
    return pytree.tree_unflatten(result, spec)
