"""The inner step, used by the trainer, all engines and all searches."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from metaloss.inner.forward import Forward, Stepped, pull, rows_of
from metaloss.inner.forward_mode import Tangents
from metaloss.inner.gradients import filled
from metaloss.inner.keys import nth_key, sampled_rows
from metaloss.inner.optimizers.base import InnerOptimizer
from metaloss.inner.problem_losses import ProblemLosses
from metaloss.types import Batch, InnerState, RowSample, StoredStep, Tensors

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class InnerProblem(ProblemLosses):
    """The functions that an inner step is made of. They are constant during a run.

    Attributes:
        optimizer: The inner optimizer.
        tangents: How an engine differentiates the model along a direction.
        programs: ``(function, *arguments) -> function(problem, *arguments)`` by compiled programs;
            None: eagerly.
        judge_rows: The share of the rows of a meta-batch that the task loss is computed on.
        recall: What the loss sees of rows (`Row`): of the ledger, their numbers, the progress.
    """

    optimizer: InnerOptimizer
    tangents: Tangents = Tangents.forward
    programs: Callable[..., Any] | None = None
    judge_rows: float = 1.0
    recall: Callable[[Tensor, Tensor, Tensor], Tensors] | None = None

    @classmethod
    def of(cls, problem: InnerProblem, **changes: Any) -> Self:
        """Return a problem of this class with the attributes of another one, except ``changes``."""
        own = {field.name: getattr(problem, field.name) for field in fields(InnerProblem)}
        return cls(**{**own, **changes})

    @cached_property
    def fixed_phi(self) -> frozenset[str]:
        """The names of frozen parameters of the loss: part of φ, but never updated."""
        return frozenset(n for n, p in self.loss.named_parameters() if not p.requires_grad)

    def vmap_members(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function for this problem's values: here, the function itself.

        In a problem of several members (`StackedProblem`), it is applied to each of them.
        """
        return function

    def broadcast(self, values: T) -> T:
        """Return values that must be equal in all processes: here, the values themselves.

        In a problem of several processes (`ShardedProblem`), they are those of process 0.
        """
        return values

    def exchanging(self) -> AbstractContextManager[None]:
        """Return a block in which a program runs that may exchange values with other processes."""
        return nullcontext()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return ``function(problem, *arguments)``, computed by a compiled program if possible."""
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

    def sampled(self, step: StoredStep, after: Tensors, share: float) -> RowSample:
        """Draw a share of the rows of a step's batch; ``after`` are the buffers after the step."""
        rows, total = self.draw_rows(step.key, step.batch.targets, share)
        moments = self.vmap_members(self.model.moments)(step.state.buffers, after) if after else {}
        return RowSample(rows, total, moments)

    def draw_rows(self, key: Tensor, targets: Tensor, share: float) -> tuple[Tensor, int]:
        """Return the (M,) numbers of rows that a key decides, and B: see `sampled_rows`."""
        return sampled_rows(key, share, len(targets)), len(targets)

    def step_outputs(self, params: Tensors, step: StoredStep) -> Tensor:
        """Return the raw outputs of a step's rows, in the step's buffers, at other weights."""
        return self.predict(params, step.state.buffers, step.batch, step.key, step.sample)[0]

    def summed(
        self, product: Callable[..., T], phi: Tensors, step: StoredStep, direction: Tensors
    ) -> T:
        """Return ``product(problem, phi, step, direction)``, of all parts of the step's batch."""
        return product(self, phi, step, direction)

    def update(self, grads: Tensors, state: Any, params: Tensors) -> tuple[Tensors, Any]:
        """Return θ and the optimizer's state after one update."""
        return self.vmap_members(self.optimizer.update)(grads, state, params)

    def forward(
        self, state: InnerState, batch: Batch, key: Tensor, sample: RowSample | None = None
    ) -> Forward:
        """Run the model on a batch, so that losses of its outputs can be differentiated in θ."""
        leaves = {name: p.detach() for name, p in state.params.items()}
        for name in self.model.writes_params:
            leaves[name] = leaves[name].clone()
        leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
        with torch.enable_grad():
            outputs, buffers = self.predict(leaves, state.buffers, batch, key, sample)
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

        ``forward`` is the forward pass of this batch at this state, if it was computed already.
        """
        if forward is None and self.programs is not None:
            stepped: Stepped = self.programs(InnerProblem.step, phi, state, batch, key)
            return stepped
        forward = forward or self.forward(state, batch, key)
        with torch.enable_grad():
            loss = self.learned_loss(phi, forward.outputs, batch.targets)
        grads = {name: value for name, value in pull(loss, forward).items() if value is not None}
        with torch.no_grad():
            task = self.task_loss_of(forward.outputs.detach(), batch.targets)
            notes = self.noted(forward.outputs, batch.targets)
            # A model may write into its parameters: the update begins from the new values.
            begun = {name: leaf.detach() for name, leaf in forward.leaves.items()}
            params, optimizer = self.update(grads, state.optimizer, begun)
        state = InnerState(params, forward.buffers, optimizer)
        return Stepped(state, grads, loss.detach(), task, notes=notes)

    def task_gradient(
        self, state: InnerState, batch: Batch, key: Tensor, forward: Forward | None = None
    ) -> tuple[Tensors, Tensor]:
        """Return ∇_θ of the task loss on a meta-batch, and the task loss. Buffers do not change.

        With ``judge_rows`` below 1, they are unbiased estimates from a sample of the rows. If
        ``forward`` is given, its graph is kept for another backward pass.
        """
        sample = self.judging(batch, key)
        if sample is not None:
            forward = None  # two passes over few rows take less time than one over all of them
        given = (state, batch, key, sample)
        if forward is None and self.programs is not None:
            found: tuple[Tensors, Tensor] = self.programs(InnerProblem._task_gradient, *given)
            return found
        return self._task_gradient(*given, forward)

    def judging(self, batch: Batch, key: Tensor) -> RowSample | None:
        """Return the rows of a meta-batch that the task loss is computed on; None: all of them."""
        if self.judge_rows == 1:
            return None
        return RowSample(*self.draw_rows(nth_key(key, 1), batch.targets, self.judge_rows), {})

    def _task_gradient(
        self,
        state: InnerState,
        batch: Batch,
        key: Tensor,
        sample: RowSample | None,
        forward: Forward | None = None,
    ) -> tuple[Tensors, Tensor]:
        again = forward is not None
        forward = forward or self.forward(state, batch, key, sample)
        with torch.enable_grad():
            loss = self.judged_loss(forward.outputs, batch.targets, sample)
        return filled(pull(loss, forward, again=again), forward.leaves), loss.detach()

    def judge(self, *given: Any) -> tuple[Tensors, Tensor]:
        """Call :meth:`task_gradient`; this is its name before metaloss 0.2."""
        message = "judge is now called task_gradient; the old name works until metaloss 0.3"
        warnings.warn(message, FutureWarning, stacklevel=2)
        return self.task_gradient(*given)
