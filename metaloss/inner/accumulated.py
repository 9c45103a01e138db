"""Inner steps on a batch that is too large for one forward pass: gradient accumulation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.errors import MetalossError
from metaloss.inner.forward import Forward, Stepped, pull
from metaloss.inner.gradients import filled
from metaloss.inner.keys import nth_key
from metaloss.inner.problem import InnerProblem
from metaloss.inner.sharded import ShardedProblem
from metaloss.inner.weighted import counted
from metaloss.types import Batch, InnerState, RowSample, StoredStep, Tensors

T = TypeVar("T")


class MicroBatches(NamedTuple):
    """A batch in parts, in the place of a `Batch`."""

    parts: tuple[Batch, ...]

    @property
    def targets(self) -> Any:
        """The targets of all rows."""
        every = [part.targets for part in self.parts]
        return pytree.tree_map(lambda *values: torch.cat(values), *every)


@dataclass(frozen=True, kw_only=True)
class AccumulatedProblem(InnerProblem):
    """A problem whose batches may be `MicroBatches`: one step, with one part in memory at a time.

    The losses are means over rows, so that the loss of the batch is Σ (nₘ/N) Lₘ, where nₘ of N rows
    are in part m, or their share of the weights. All derivatives are the same sums. A part's
    forward pass begins with the buffers that the part before it has left.
    """

    def predict(
        self,
        params: Tensors,
        buffers: Tensors,
        batch: Any,
        key: Tensor,
        sample: RowSample | None = None,
    ) -> tuple[Tensor, Tensors]:
        """Return the raw outputs of all rows in train mode, and the new buffers."""
        if not isinstance(batch, MicroBatches):
            return super().predict(params, buffers, batch, key, sample)
        outputs = []
        for number, part in enumerate(batch.parts):
            found, buffers = super().predict(params, buffers, part, nth_key(key, number))
            outputs.append(found)
        return torch.cat(outputs), buffers

    def summed(
        self, product: Callable[..., T], phi: Tensors, step: StoredStep, direction: Tensors
    ) -> T:
        """Return the sum of a product over the parts of the step's batch."""
        batch: Any = step.batch
        if not isinstance(batch, MicroBatches):
            return product(self, phi, step, direction)
        buffers = (step.state.buffers, *step.between)
        total: Any = None
        for before, (share, part, key) in zip(buffers, self.shares(batch, step.key), strict=True):
            state = step.state._replace(buffers=before)
            found = product(self, phi, StoredStep(state, part, key, {}), direction)
            total = _added(total, found, share)
        result: T = total
        return result

    def step(
        self,
        phi: Tensors,
        state: InnerState,
        batch: Any,
        key: Tensor,
        forward: Forward | None = None,
    ) -> Stepped:
        """Take one inner step with the gradient of all parts; see `InnerProblem.step`."""
        if not isinstance(batch, MicroBatches):
            return super().step(phi, state, batch, key, forward)
        if self.programs is not None:
            stepped: Stepped = self.programs(AccumulatedProblem.step, phi, state, batch, key)
            return stepped
        grads: dict[str, Tensor] = {}
        between: list[Tensors] = []
        totals: Any = None
        for share, part, own in self.shares(batch, key):
            found = self.forward(state, part, own)
            with torch.enable_grad():
                loss = self.learned_loss(phi, found.outputs, part.targets)
            for name, value in pull(loss, found).items():
                if value is not None:
                    before = grads.get(name)
                    grads[name] = _added(before, value, share)
            with torch.no_grad():
                task = self.task_loss_of(found.outputs.detach(), part.targets)
            totals = _added(totals, (loss.detach(), task), share)
            params = {name: leaf.detach() for name, leaf in found.leaves.items()}
            state = InnerState(params, found.buffers, state.optimizer)
            between.append(found.buffers)
        ordered = {name: grads[name] for name in state.params if name in grads}
        with torch.no_grad():
            params, optimizer = self.update(ordered, state.optimizer, state.params)
        after = InnerState(params, state.buffers, optimizer)
        loss, task = totals
        return Stepped(after, ordered, loss, task, tuple(between[:-1]))

    def task_gradient(
        self, state: InnerState, batch: Any, key: Tensor, forward: Forward | None = None
    ) -> tuple[Tensors, Tensor]:
        """Return ∇_θ of the task loss of all parts, and the task loss."""
        if not isinstance(batch, MicroBatches):
            return super().task_gradient(state, batch, key, forward)
        if self.programs is not None:
            given: tuple[Tensors, Tensor] = self.programs(
                AccumulatedProblem.task_gradient, state, batch, key
            )
            return given
        total: Any = None
        for share, part, own in self.shares(batch, key):
            found = self.forward(state, part, own)
            with torch.enable_grad():
                loss = self.task_loss_of(found.outputs, part.targets)
            gradient = filled(pull(loss, found), found.leaves)
            total = _added(total, (gradient, loss.detach()), share)
            state = state._replace(buffers=found.buffers)
        gradient, loss = total
        return gradient, loss

    def shares(self, batch: MicroBatches, key: Tensor) -> Iterator[tuple[Tensor, Batch, Tensor]]:
        """Yield the share of each part, the part, and its dropout key."""
        ignored = getattr(self.loss, "ignore_index", None)
        counts = torch.stack([counted(part.targets, ignored).sum() for part in batch.parts])
        shares = counts / counts.sum().clamp(min=1e-30)
        for number, part in enumerate(batch.parts):
            yield shares[number], part, nth_key(key, number)


@torch.no_grad()
def refuse_coupled_parts(
    problem: AccumulatedProblem, phi: Tensors, state: InnerState, batch: Any, key: Tensor
) -> None:
    """Raise if a loss of two parts together is not the mean of their losses.

    So it is if rows are ranked within a batch, or if weights are divided by their sum.
    """
    if not isinstance(batch, MicroBatches) or len(batch.parts) < 2:
        return
    two = MicroBatches(batch.parts[:2])
    outputs, _ = problem.predict(state.params, state.buffers, two, key)
    targets = two.targets
    losses: dict[str, Callable[[Tensor, Any], Tensor]] = {
        f"the loss {type(problem.loss).__name__}": partial(problem.learned_loss, phi),
        "the task loss": problem.task_loss_of,
    }
    for name, loss in losses.items():
        whole, begin = loss(outputs, targets), 0
        total = torch.zeros_like(whole)
        for share, part, _key in problem.shares(two, key):
            end = begin + len(part.targets)
            total = total + share * loss(outputs[begin:end], targets[begin:end])
            begin = end
        off, scale = float((total - whole).abs().max()), float(whole.abs().max())
        if off > 100 * torch.finfo(whole.dtype).eps * max(scale, 1e-6):
            raise MetalossError(
                f"{name} is not a mean over the rows of a batch, so that accumulate=True would "
                "give other numbers: expected the whole batch"
            )


@dataclass(frozen=True, kw_only=True)
class AccumulatedShardedProblem(AccumulatedProblem, ShardedProblem):
    """An `AccumulatedProblem` in several processes."""


def _added(total: Any, values: Any, share: Tensor) -> Any:
    """Return total + share · values, for each tensor of a pytree."""
    scaled = pytree.tree_map(lambda value: value * share.to(value.dtype), values)
    if total is None:
        return scaled
    return pytree.tree_map(torch.add, total, scaled)
