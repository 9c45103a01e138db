"""One inner step, shared by the trainer, every engine and every search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from functools import cached_property
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from metaloss.inner.gradients import filled, reached_by
from metaloss.inner.keys import sampled_rows
from metaloss.inner.model.functional import FunctionalModel
from metaloss.inner.optimizers.base import InnerOptimizer
from metaloss.types import Batch, InnerState, RowSample, StoredStep, Tensors

T = TypeVar("T")


class Tangents(Enum):
    """How J v, the change of the outputs along a direction v in θ, is computed for a model.

    ``forward``: one forward-mode pass. ``unfused``: the same without the fused kernels of oneDNN
    and cuDNN, some of which have no forward mode. ``reverse``: the pullback of a pullback, two
    reverse passes. These three are exact. ``differences``: of the outputs at two points. Which of
    them are right for a model is found out by `probe`.
    """

    forward = "forward"
    unfused = "unfused"
    reverse = "reverse"
    differences = "differences"


class Forward(NamedTuple):
    """A forward pass in train mode, with its graph: θ as leaves, raw outputs, the new buffers."""

    leaves: Tensors
    outputs: Tensor
    buffers: Tensors


class Stepped(NamedTuple):
    """What an inner step came to: the state after it; before it ∇_θ L_φ, L_φ and the task loss.

    ``grads`` has no entry for a parameter that the loss does not depend on.
    """

    state: InnerState
    grads: Tensors
    loss: Tensor
    task: Tensor


class Programs(Protocol):
    """Runs functions of a problem as compiled programs."""

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return ``function(problem, *arguments)``."""


@dataclass(frozen=True, kw_only=True)
class InnerProblem:
    """What stays the same over a run: the functions that an inner step is made of.

    Attributes:
        model: The base model as a function.
        loss: The learned loss; its own parameters are ignored, φ is passed in.
        task_loss: What φ is judged by, ``(raw outputs, targets) -> scalar``.
        optimizer: How θ moves.
        tangents: How an engine differentiates the model along a direction.
        programs: Runs inner steps, judgements and what else goes through :meth:`run` as compiled
            programs, each by itself; None: all of it is eager.
    """

    model: FunctionalModel
    loss: nn.Module
    task_loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: InnerOptimizer
    tangents: Tangents = Tangents.forward
    programs: Programs | None = None

    @classmethod
    def of(cls, problem: InnerProblem, **changes: Any) -> Self:
        """Return a problem of this kind with what another one is made of, and ``changes``."""
        own = {field.name: getattr(problem, field.name) for field in fields(InnerProblem)}
        return cls(**{**own, **changes})

    @cached_property
    def tied_loss(self) -> bool:
        """Whether parameters of the loss share storage by name: rare, and costly to look for."""
        every = sum(1 for _ in self.loss.named_parameters(remove_duplicate=False))
        return every != sum(1 for _ in self.loss.named_parameters())

    @cached_property
    def fixed_phi(self) -> frozenset[str]:
        """Names of the loss's frozen parameters: they are part of φ, and do not move."""
        return frozenset(n for n, p in self.loss.named_parameters() if not p.requires_grad)

    def vmap_members(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function as it applies to this problem's values: as it is.

        A problem of many members at once (`StackedProblem`) applies it to each of them.
        """
        return function

    def broadcast(self, values: T) -> T:
        """Return values that every process of a run must hold alike: as they are.

        A problem in many processes (`ShardedProblem`) returns those of one of them.
        """
        return values

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return ``function(problem, *arguments)``, as a compiled program if there are any."""
        if self.programs is None:
            return function(self, *arguments)
        return self.programs(function, *arguments)

    def predict(
        self,
        params: Tensors,
        buffers: Tensors,
        batch: Batch,
        key: Tensor,
        sample: RowSample | None = None,
    ) -> tuple[Tensor, Tensors]:
        """Return the raw outputs (B, C, *) in train mode, and the new buffers.

        With a sample, the outputs (M, C, *) of these rows of the batch.
        """
        if sample is None:
            return self.model(params, buffers, batch.inputs, key=key)
        inputs = rows_of(batch.inputs, sample.rows)
        return self.model(params, buffers, inputs, key=key, sample=sample)

    def learned_loss(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar L_φ."""
        return functional_call(self.loss, phi, (outputs, targets), tie_weights=self.tied_loss)

    def sampled(self, step: StoredStep, after: Tensors, share: float) -> RowSample:
        """Draw a share of the rows of a step's batch; ``after`` are the buffers after the step."""
        rows, total = self.draw_rows(step.key, step.batch.targets, share)
        moments = self.vmap_members(self.model.moments)(step.state.buffers, after) if after else {}
        return RowSample(rows, total, moments)

    def draw_rows(self, key: Tensor, targets: Tensor, share: float) -> tuple[Tensor, int]:
        """Return the (M,) numbers of rows that a key decides, and B: see `sampled_rows`."""
        return sampled_rows(key, share, len(targets)), len(targets)

    def sample_loss(self, phi: Tensors, outputs: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """Return an unbiased estimate of L_φ of a batch out of a sample of its rows.

        Args:
            phi: φ by name.
            outputs: (M, C, *) of the sample.
            targets: (B, *) or (B, C, *) of the whole batch.
            rows: (M,) row numbers of the sample.
        """
        value = InnerProblem.learned_loss(self, phi, outputs, targets[rows])
        ignored = getattr(self.loss, "ignore_index", None)
        if ignored is None or targets.is_floating_point():
            return value
        # A mean over the targets that count: their number in the sample is not that in the batch.
        counted = (targets != ignored).to(value.dtype)
        return value * (counted[rows].mean() / counted.mean().clamp(min=1e-30))

    def step_outputs(self, params: Tensors, step: StoredStep) -> Tensor:
        """Return the raw outputs of a step's rows, in the step's buffers, at other weights."""
        return self.predict(params, step.state.buffers, step.batch, step.key, step.sample)[0]

    def step_loss(self, phi: Tensors, outputs: Tensor, step: StoredStep) -> Tensor:
        """Return L_φ of a step's outputs; of a sample of rows its unbiased estimate."""
        if step.sample is None:
            return self.learned_loss(phi, outputs, step.batch.targets)
        return self.sample_loss(phi, outputs, step.batch.targets, step.sample.rows)

    def judgement(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar task loss."""
        return self.task_loss(outputs, targets)

    def update(self, grads: Tensors, state: Any, params: Tensors) -> tuple[Tensors, Any]:
        """Return θ and the optimizer's state after one update."""
        return self.vmap_members(self.optimizer.update)(grads, state, params)

    def forward(self, state: InnerState, batch: Batch, key: Tensor) -> Forward:
        """Run the model on a batch, so that losses of its outputs can be pulled back to θ."""
        leaves = {name: p.detach() for name, p in state.params.items()}
        for name in self.model.writes_params:
            leaves[name] = leaves[name].clone()
        leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
        with torch.enable_grad():
            outputs, buffers = self.predict(leaves, state.buffers, batch, key)
        return Forward(leaves, outputs, buffers)

    def step(
        self,
        phi: Tensors,
        state: InnerState,
        batch: Batch,
        key: Tensor,
        forward: Forward | None = None,
    ) -> Stepped:
        """Take one inner step; all results are detached.

        Args:
            phi: φ by name.
            state: The state before the step.
            batch: What it sees.
            key: Decides the dropout masks.
            forward: The model's pass over this batch at this state, if it was run already.
        """
        if forward is None and self.programs is not None:
            stepped: Stepped = self.programs(InnerProblem.step, phi, state, batch, key)
            return stepped
        forward = forward or self.forward(state, batch, key)
        with torch.enable_grad():
            loss = self.learned_loss(phi, forward.outputs, batch.targets)
        grads = {name: value for name, value in _pull(loss, forward).items() if value is not None}
        with torch.no_grad():
            task = self.judgement(forward.outputs.detach(), batch.targets)
            # A model may write into its parameters: what it left is what is updated.
            begun = {name: leaf.detach() for name, leaf in forward.leaves.items()}
            params, optimizer = self.update(grads, state.optimizer, begun)
        return Stepped(InnerState(params, forward.buffers, optimizer), grads, loss.detach(), task)

    def judge(
        self, state: InnerState, batch: Batch, key: Tensor, forward: Forward | None = None
    ) -> tuple[Tensors, Tensor]:
        """Return ∇_θ of the task loss on a meta-batch, and the task loss; buffers are dropped.

        A pass that is given can be pulled back again.
        """
        if forward is None and self.programs is not None:
            judged: tuple[Tensors, Tensor] = self.programs(InnerProblem.judge, state, batch, key)
            return judged
        again = forward is not None
        forward = forward or self.forward(state, batch, key)
        with torch.enable_grad():
            loss = self.judgement(forward.outputs, batch.targets)
        return filled(_pull(loss, forward, again=again), forward.leaves), loss.detach()


def _pull(loss: Tensor, forward: Forward, *, again: bool = False) -> dict[str, Tensor | None]:
    values = reached_by(loss, list(forward.leaves.values()), retain_graph=again)
    return dict(zip(forward.leaves, values, strict=True))


def rows_of(inputs: Any, index: Any) -> Any:
    """Return some rows of a batch's inputs: a tensor, or a tuple, list or dictionary of tensors."""
    return pytree.tree_map_only(Tensor, lambda one: one[index], inputs)
