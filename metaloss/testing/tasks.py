"""The contract of a task: rows that fit the link, and splits that do not overlap."""

from __future__ import annotations

from functools import cached_property

import torch

from metaloss.contracts import Task
from metaloss.testing.base import (
    Checks,
    nothing_changes,
    require,
    require_close,
    require_finite,
)
from metaloss.types import Batch, Link


class TaskChecks(Checks):
    """Checks of a task; ``make`` returns its source.

    Example:
        >>> from metaloss.data.tables.diabetes import Diabetes
        >>> class TestDiabetes(TaskChecks):
        ...     def make(self):
        ...         return Diabetes()
        >>> TestDiabetes().test_no_row_is_in_two_parts()
    """

    @cached_property
    def built(self) -> Task:
        """The task of seed 0."""
        return self.made().build(0)

    def test_rows_fit_the_link(self) -> None:
        """Every split has rows; targets are class indices below C, or (n, C, *) values."""
        task = self.built
        for name, part in _parts(task).items():
            rows = len(part.inputs)
            require(rows > 0, f"{name} has no rows")
            require(len(part.targets) == rows, f"{name}: {len(part.targets)} targets, {rows} rows")
            # int64: tokens.
            known = part.inputs.is_floating_point() or part.inputs.dtype == torch.int64
            require(known, f"{name}: inputs in {part.inputs.dtype}, expected floats or int64")
            require(part.inputs.shape[1:] == task.input_shape, f"{name}: rows of another shape")
            if task.link is Link.softmax:
                integer = part.targets.dtype == torch.int64
                require(integer, f"{name}: class indices in {part.targets.dtype}, expected int64")
                counted = part.targets[part.targets != task.ignore_index]
                inside = bool((counted >= 0).all() and (counted < task.outputs).all())
                require(inside, f"{name}: class indices outside of 0 to {task.outputs - 1}")
            else:
                floating = part.targets.is_floating_point()
                require(floating, f"{name}: targets in {part.targets.dtype}, expected floats")
                shape = tuple(part.targets.shape)
                require(shape[1:2] == (task.outputs,), f"{name}: targets {shape}, expected (n, C)")

    def test_rows_are_finite_and_differ(self) -> None:
        """Values are finite; neither inputs nor targets are all the same."""
        for name, part in _parts(self.built).items():
            for kind, values in zip(("inputs", "targets"), part, strict=True):
                require_finite(values, f"{name} {kind}")
                require((values != values[:1]).any(), f"{name}: all {kind} are the same")

    def test_no_row_is_in_two_parts(self) -> None:
        """No row is in two of training, validation and test rows; compared bit by bit."""
        rows = {name: _as_bytes(part) for name, part in _parts(self.built).items()}
        for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
            both = len(rows[first] & rows[second])
            require(both == 0, f"{both} rows are both in {first} and in {second}")

    def test_the_seed_decides_everything(self) -> None:
        """The same seed gives the same task, another seed another one; no global state changes."""
        with nothing_changes("build()"):
            task, again, other = (self.made().build(seed) for seed in (3, 3, 4))
        require_close(_parts(task), _parts(again), "the same seed", rtol=0, atol=0)
        differs = task.train.inputs.shape != other.train.inputs.shape or not torch.equal(
            task.train.inputs, other.train.inputs
        )
        require(differs, "another seed gives the same training rows")

    def test_losses_and_metrics_are_numbers(self) -> None:
        """Task loss and metric are finite scalars; the task loss has a gradient."""
        task = self.built
        for name, part in _parts(task).items():
            outputs = self._outputs(part).requires_grad_()
            loss = task.task_loss(outputs, part.targets)
            require(loss.shape == (), f"{name}: the task loss has shape {tuple(loss.shape)}")
            (slope,) = torch.autograd.grad(loss, outputs)
            require_finite((loss, slope), f"{name}: task loss")
            require(slope.abs().max() > 0, f"{name}: the task loss has no gradient")
            metric = task.metric(outputs.detach(), part.targets)
            require(metric.shape == (), f"{name}: the metric has shape {tuple(metric.shape)}")
            require_finite(metric, f"{name}: metric")
        require(task.goal in ("min", "max"), f"goal={task.goal!r}, expected 'min' or 'max'")
        require(bool(task.name and task.metric_name), "name or metric_name is empty")

    def test_no_constant_beats_the_constant_loss(self) -> None:
        """``constant_loss`` is positive, and at most the task loss of constant zeros."""
        task = self.built
        zeros = torch.zeros_like(self._outputs(task.train))
        score = float(task.task_loss(zeros, task.train.targets))
        best = task.constant_loss
        require(0 < best <= score * (1 + 1e-5), f"constant_loss={best}, constant zeros: {score}")

    def test_rows_are_on_the_cpu(self) -> None:
        """Rows are on the CPU and record no gradients."""
        for name, part in _parts(self.built).items():
            require(part.inputs.device.type == "cpu", f"{name} is on {part.inputs.device}")
            require(not any(values.requires_grad for values in part), f"{name} records gradients")

    def test_augmentation_is_a_pure_function(self) -> None:
        """``augment`` keeps shape and type, and depends only on the inputs and the key."""
        augment, inputs = self.built.augment, self.built.train.inputs[:16]
        if augment is None:
            return
        key = torch.tensor(2**40 + 3)
        with nothing_changes("augment()", inputs, key):
            first, again = augment(inputs, key), augment(inputs, key)
        form = first.shape == inputs.shape and first.dtype == inputs.dtype
        require(form, f"augment() returns {tuple(first.shape)} in {first.dtype}")
        require_close(first, again, "augment() with the same key", rtol=0, atol=0)
        require_finite(first, "augment()")
        others = [augment(inputs, torch.tensor(number)) for number in range(8)]
        differs = any(not torch.equal(first, other) for other in others)
        require(differs, "augment() gives the same whatever the key")

    def _outputs(self, part: Batch) -> torch.Tensor:
        """Return arbitrary raw outputs (n, C, *) for the rows."""
        further = part.targets.shape[1 if self.built.link is Link.softmax else 2 :]
        shape = (len(part.inputs), self.built.outputs, *further)
        return torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape)


def _parts(task: Task) -> dict[str, Batch]:
    parts = {"train": task.train, "valid": task.valid, "test": task.test, "jury": task.jury}
    return {name: part for name, part in parts.items() if part is not None}


def _as_bytes(part: Batch) -> set[bytes]:
    return {row.tobytes() for row in part.inputs.flatten(1).numpy()}
