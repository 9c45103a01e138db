"""A task from the user's own rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metaloss.contracts import Task
from metaloss.data.checks import number
from metaloss.data.datasets import picked, read_rows
from metaloss.data.lazy import LazyRows
from metaloss.data.materialize import Rows, all_named
from metaloss.data.splits import split_rows
from metaloss.data.targets.class_weights import check_class_weights, class_weights
from metaloss.data.targets.constant import fitted_constant
from metaloss.data.targets.kinds import Classes, Kind, TensorFunction, kind_of
from metaloss.data.targets.metrics import IGNORED
from metaloss.data.targets.scores import check_scores
from metaloss.errors import MetalossError, check_index, check_whole, first_line
from metaloss.inner.keys import derive
from metaloss.inner.one_thread import one_thread
from metaloss.options import Options
from metaloss.types import Batch, Link

_SOME = 64


@dataclass(frozen=True, kw_only=True)
class TaskOptions(Options):
    """Options of `task_from_data`. Defaults are inferred from the targets.

    Attributes:
        link: What turns raw outputs into predictions. Default: softmax for integer targets,
            identity for real ones. ``sigmoid`` is never inferred.
        outputs: C. Default: the largest class plus one, or the targets' second dimension.
        task_loss: ``(raw outputs (B, C, *), targets) -> scalar``, differentiable. Default:
            cross-entropy, binary cross-entropy on logits, or mean squared error, by link.
        metric: ``(raw outputs, targets) -> scalar``, a mean over rows. Default: error rate, or
            mean squared error, by link.
        metric_name: Required with ``metric``.
        goal: Whether lower (``"min"``) or higher (``"max"``) values of ``metric`` are better.
        metrics: Names of further metrics, computed at the end of a run, such as ``"f1_macro"``.
        valid_fraction: The share of training rows that become validation rows if none are given, in
            (0, 1).
        ignore_index: The class index of targets that do not count, such as 255 in masks. Default:
            −100, as in torch. Your own ``task_loss`` and ``metric`` must ignore it too.
        constant_loss: The task loss of the best constant prediction. Default: computed.
        class_weights: How much rows count by their class, in training and in the task loss:
            ``"balanced"``, C numbers ≥ 0, or numbers by class index. Not with a ``task_loss`` of
            your own, which would have to be weighted too.
        description: One line to show.
        lazy: Whether the rows of a ``Dataset`` are read when they are needed; otherwise they are
            copied once. Transforms of training rows then draw anew for every batch, by the run's
            seed. None: for training rows with random transforms, and for rows that would take more
            than half of the free memory.
        workers: The number of processes that read rows lazily; 0: the process that trains. The
            numbers are the same for any. None: those of a ``DataLoader``, else 0.

    Raises:
        MetalossError: If a value is out of range.

    Example:
        >>> TaskOptions(link="sigmoid", valid_fraction=0.2).goal
        'min'
    """

    link: Link | str | None = None
    outputs: int | None = None
    task_loss: TensorFunction | None = None
    metric: TensorFunction | None = None
    metric_name: str | None = None
    goal: str = "min"
    metrics: Sequence[str] = ()
    valid_fraction: float = 0.15
    ignore_index: int = IGNORED
    constant_loss: float | None = None
    class_weights: Any = None
    description: str = ""
    lazy: bool | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.link is not None and self.link not in {*Link, *(link.value for link in Link)}:
            allowed = ", ".join(link.value for link in Link)
            raise MetalossError(f"link={self.link}: expected one of {allowed}")
        if self.outputs is not None:
            check_whole("outputs", self.outputs, 1)
        check_index("ignore_index", self.ignore_index)
        if self.goal not in ("min", "max"):
            raise MetalossError(f"goal={self.goal}: expected min or max")
        if (self.metric is None) != (self.metric_name is None):
            raise MetalossError("metric and metric_name: expected both or neither")
        if self.goal == "max" and self.metric is None:
            raise MetalossError(
                "goal=max: expected a metric too; lower is better for the built-in ones"
            )
        check_class_weights(self.class_weights)
        if self.class_weights is not None and self.task_loss is not None:
            raise MetalossError(
                "class_weights with a task_loss of your own: expected one of them, because the "
                "task loss must have the same weights"
            )
        number("valid_fraction", self.valid_fraction, 0, 1)
        if self.workers is not None:
            check_whole("workers", self.workers, 0)


def task_from_data(
    train: Rows,
    valid: Rows | None = None,
    test: Rows | None = None,
    *,
    name: str = "data",
    seed: int = 0,
    options: TaskOptions | None = None,
) -> Task:
    """Return a task from your own rows: pairs of tensors, ``Dataset`` or ``DataLoader`` objects.

    Integer targets give a classification (softmax, cross-entropy, ``error``), real ones a
    regression (identity, squared error, ``mse`` in squared units of the targets); ``options``
    overrides this. Rows are read once, onto the CPU, or when they are needed (`TaskOptions`, lazy).
    Floating-point numbers become torch's default type, integer inputs int64 (tokens). Inputs and
    targets are not scaled.

    Args:
        train: Inputs (B, ...), or a tuple, list or dictionary of such tensors, with targets (B, *):
            class indices 0 to C − 1, or values (B, C, *); values (B,) become (B, 1).
        valid: Rows that the meta-batches are drawn from. None: a share of ``train``
            (``options.valid_fraction``), stratified by class.
        test: Rows that are only evaluated. **None: the validation rows are the test rows too. Test
            metrics are then optimistic, because φ is learned on these rows.**
        name: Shown in tables and folder names.
        seed: Determines the split, and what random transforms and samplers draw.
        options: Values that should not be inferred.

    Raises:
        MetalossError: If rows are missing, differ in number or shape, have NaN or infinities, or if
            targets do not fit the link or the number of outputs.

    Example:
        >>> inputs, labels = torch.randn(100, 4), torch.arange(100) % 3
        >>> task = task_from_data((inputs, labels), name="mine")
        >>> task.outputs, task.metric_name, len(task.train.inputs), len(task.valid.inputs)
        (3, 'error', 85, 15)
    """
    options = options or TaskOptions()
    given = {"train": train, "valid": valid, "test": test}
    parts = {
        part: read_rows(rows, part, seed=seed, lazy=options.lazy, workers=options.workers)
        for part, rows in given.items()
        if rows is not None
    }
    link = None if options.link is None else Link(options.link)
    kind = kind_of(parts["train"].targets, link, options.ignore_index)
    for part, batch in parts.items():
        parts[part] = batch._replace(targets=kind.prepare(part, batch.targets))
        _same_form(part, parts[part], parts["train"])
    outputs = options.outputs or kind.outputs(parts["train"].targets)
    for part, batch in parts.items():
        if options.task_loss is None:
            kind.check(part, batch.targets, outputs)
        # For a user's own task loss, only class indices are checked.
        elif isinstance(kind, Classes) and not batch.targets.is_floating_point():
            kind.check_classes(part, batch.targets, outputs)
    if options.task_loss is not None:
        _check_task_loss(parts, outputs, options.task_loss)
    if "valid" not in parts:
        parts["train"], parts["valid"] = _split_off(parts["train"], options, seed)
    if options.class_weights is not None:
        kind = _weighted(kind, parts["train"].targets, outputs, options)
    return Task(
        name=name,
        train=parts["train"],
        valid=parts["valid"],
        test=parts.get("test", parts["valid"]),
        link=kind.link,
        outputs=outputs,
        task_loss=options.task_loss or kind.task_loss,
        metric_name=options.metric_name or kind.metric_name,
        metric=options.metric or kind.metric,
        goal=options.goal,
        metrics=check_scores(options.metrics, kind.link, options.metric_name or kind.metric_name),
        constant_loss=_constant_loss(kind, parts["train"].targets, outputs, options),
        description=options.description,
        ignore_index=options.ignore_index,
        class_weights=kind.weights,
        origins=_origins(parts, valid is None),
    )


def _origins(parts: dict[str, Batch], drawn: bool) -> dict[str, str]:
    """Return what is worth knowing of where rows come from, in words."""
    found = {"valid": "drawn from the training rows"} if drawn else {}
    for part, rows in parts.items():
        if isinstance(rows.inputs, LazyRows):
            found[part] = "; ".join([*([found[part]] if part in found else []), "read lazily"])
    return found


def _weighted(kind: Kind, targets: Tensor, outputs: int, options: TaskOptions) -> Kind:
    if not isinstance(kind, Classes):
        raise MetalossError(
            f"class_weights with link={kind.link.value}: expected a class for each row"
        )
    ignored = options.ignore_index
    weights = class_weights(options.class_weights, targets, outputs, ignore_index=ignored)
    return replace(kind, weights=weights)


def _same_form(part: str, batch: Batch, train: Batch) -> None:
    own, expected = all_named(batch), all_named(train)
    if own.keys() != expected.keys():
        raise MetalossError(
            f"{part}: {', '.join(own)}; expected {', '.join(expected)}, as in train"
        )
    for name, tensor in own.items():
        reference = expected[name]
        if tensor.shape[1:] != reference.shape[1:] or tensor.dtype != reference.dtype:
            raise MetalossError(
                f"{part}: {name} of shape {tuple(tensor.shape)} and {tensor.dtype}; expected "
                f"{_shape(reference)} and {reference.dtype}, as in train"
            )


def _shape(rows: Tensor) -> str:
    return f"({', '.join(['B', *map(str, rows.shape[1:])])})"


def _split_off(train: Batch, options: TaskOptions, seed: int) -> tuple[Batch, Batch]:
    rng = np.random.default_rng(derive(seed, "data/split"))
    indices = train.targets.ndim == 1 and not train.targets.is_floating_point()
    strata = train.targets.numpy() if indices else None
    split = split_rows(len(train.inputs), options.valid_fraction, 0, rng, strata=strata)
    rows = torch.from_numpy(split.train), torch.from_numpy(split.valid)
    inputs = [
        picked(train.inputs, some, lazy=options.lazy, train=place == 0)
        for place, some in enumerate(rows)
    ]
    return Batch(inputs[0], train.targets[rows[0]]), Batch(inputs[1], train.targets[rows[1]])


def _check_task_loss(parts: dict[str, Batch], outputs: int, task_loss: TensorFunction) -> None:
    """Raise if the user's task loss fails on the targets."""
    for part, (_, targets) in parts.items():
        # Some rows, and those with extreme targets, such as 255.
        flat = targets.reshape(len(targets), -1)
        ends = [int(flat.amax(1).argmax()), int(flat.amin(1).argmin())]
        some = torch.cat([targets[:_SOME], targets[ends]])
        places = targets.shape[2:] if targets.is_floating_point() else targets.shape[1:]
        zeros = torch.zeros(len(some), outputs, *places)
        try:
            with one_thread(), torch.random.fork_rng(devices=[]):
                value = task_loss(zeros, some)
        # The user's code may raise anything.
        except Exception as error:
            reason = first_line(error)
            raise MetalossError(
                f"task_loss fails on targets of {part}: {reason}; expected a function of raw "
                f"outputs {_shape(zeros)} and targets {_shape(targets)}"
            ) from error
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise MetalossError(f"task_loss returns {got}; expected a scalar tensor")


def _constant_loss(kind: Kind, targets: Tensor, outputs: int, options: TaskOptions) -> float:
    if options.constant_loss is not None:
        return options.constant_loss
    if options.task_loss is not None:
        return fitted_constant(targets, outputs, options.task_loss)[0]
    return kind.constant_loss(targets, outputs)
