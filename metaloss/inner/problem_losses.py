"""The losses of an inner step, as functions of raw outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from metaloss.inner import weighted
from metaloss.inner.model.functional import FunctionalModel
from metaloss.inner.weighted import WeightedTargets, by_class, estimate, parts_of, weighted_mean
from metaloss.types import RowSample, StoredStep, Tensors


@dataclass(frozen=True, kw_only=True)
class ProblemLosses:
    """The learned loss and the task loss of outputs (B, C, *), or of a sample of their rows.

    Attributes:
        model: The network as a function; it says how outputs share in the learned loss.
        loss: The learned loss. Its own parameters are ignored; φ is passed in.
        task_loss: ``(raw outputs (B, C, *), targets) -> scalar``.
        notes: What the ledger of training rows needs of a batch's outputs; None: nothing.
        class_weights: (C,) weights of rows by their class, in L_φ and the task loss; None: equal.
    """

    model: FunctionalModel
    loss: nn.Module
    task_loss: Callable[[Tensor, Tensor], Tensor]
    notes: Callable[[Tensor, Tensor], Tensor] | None = None
    class_weights: Tensor | None = None

    @cached_property
    def tied_loss(self) -> bool:
        """Whether a parameter of the loss has several names; cached, because the search is slow."""
        every = sum(1 for _ in self.loss.named_parameters(remove_duplicate=False))
        return every != sum(1 for _ in self.loss.named_parameters())

    def learned_loss(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar L_φ; of several outputs (B, C, *, H), the sum by their shares."""
        targets = self.weighed(targets)
        if shares := self.model.shares:
            heads = zip(outputs.unbind(-1), weighted.heads_of(targets, len(shares)), strict=True)
            values = [weighted.value_of(self.loss, phi, *head, self.tied_loss) for head in heads]
            return torch.stack([a * b for a, b in zip(shares, values, strict=True)]).sum()
        return weighted.value_of(self.loss, phi, outputs, targets, self.tied_loss)

    def weighed(self, targets: Any) -> Any:
        """Return the targets with the weights of their classes, if classes have weights."""
        if self.class_weights is None or parts_of(targets)[1] is not None:
            return targets
        return by_class(targets, self.class_weights, getattr(self.loss, "ignore_index", None))

    def sample_loss(self, phi: Tensors, outputs: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """Return an unbiased estimate of L_φ of a batch out of a sample of its rows.

        The outputs (M, C, *) and the row numbers (M,) are of the sample, the targets of all rows.
        """
        targets = self.weighed(targets)
        value = ProblemLosses.learned_loss(self, phi, outputs, targets[rows])
        return estimate(value, targets, rows, getattr(self.loss, "ignore_index", None))

    def sample_task_loss(self, outputs: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """Return an unbiased estimate of the task loss of a batch; see :meth:`sample_loss`."""
        targets = self.weighed(targets)
        value = ProblemLosses.task_loss_of(self, outputs, targets[rows])
        return estimate(value, targets, rows, getattr(self.loss, "ignore_index", None))

    def step_loss(self, phi: Tensors, outputs: Tensor, step: StoredStep) -> Tensor:
        """Return L_φ of a step's outputs; of a sample of rows its unbiased estimate."""
        if step.sample is None:
            return self.learned_loss(phi, outputs, step.batch.targets)
        return self.sample_loss(phi, outputs, step.batch.targets, step.sample.rows)

    def task_loss_of(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar task loss of the (main) outputs.

        With `WeightedTargets`, it is the weighted mean over rows.
        """
        if self.model.shares:
            outputs = outputs[..., 0]
        targets = self.weighed(targets)
        if isinstance(targets, WeightedTargets):
            ignored = getattr(self.loss, "ignore_index", None)
            return weighted_mean(self.task_loss, outputs, targets, ignored)
        return self.task_loss(outputs, targets)

    def judged_loss(self, outputs: Tensor, targets: Tensor, sample: RowSample | None) -> Tensor:
        """Return the task loss of a meta-batch; of a sample of its rows an unbiased estimate."""
        if sample is None:
            return self.task_loss_of(outputs, targets)
        return self.sample_task_loss(outputs, targets, sample.rows)

    def noted(self, outputs: Tensor, targets: Tensor) -> Tensor | None:
        """Return the notes (B, 3) of outputs for the ledger of training rows; None: there is none.

        They are each row's probability of its label, whether the guess is wrong, whether it counts.
        """
        if self.notes is None:
            return None
        main = outputs[..., 0] if self.model.shares else outputs
        return self.notes(main.detach(), parts_of(targets)[0])
