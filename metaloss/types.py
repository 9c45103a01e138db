"""The values of a run: tuples of tensors (pytrees) that are never changed in place.

Shape letters: B rows of a batch, C outputs (classes, or numbers to predict), K steps of an unroll,
``*`` any further dimensions.
"""

from __future__ import annotations

import warnings
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

Tensors = dict[str, Tensor]
"""Tensors by name, such as φ, θ, gradients or buffers."""


class Link(Enum):
    """How a model's raw outputs become predictions, the inputs of the learned loss.

    Attributes:
        softmax: Probabilities of C classes, of which a row has one.
        sigmoid: A probability for each of C labels, of which a row may have several.
        identity: The raw outputs themselves, for numbers.
    """

    softmax = "softmax"
    sigmoid = "sigmoid"
    identity = "identity"


class Batch(NamedTuple):
    """Rows of a task: ``inputs`` (B, ...), ``targets`` (B, *) class indices or (B, C, *) values.

    Inputs of several tensors are `metaloss.inner.fields.Fields` in runs, and any tuple, list or
    dictionary in a `Learner`.
    """

    inputs: Tensor
    targets: Tensor


class Row(NamedTuple):
    """What a loss may be given of the rows of a batch, besides outputs and targets.

    All are constants: no engine differentiates through them. None means that it is not known; see
    `metaloss.losses.rows`. N members have (N, B, ...).

    Attributes:
        memory: (B, 2): how well the row's label was predicted at earlier visits (the mean
            probability), and how often the guess was wrong; both from 0 to 1.
        average: (B, C): moving average of the predictions at earlier visits, which begins at 0.
        visits: (B,): the number of earlier visits. A loss that sees ``average`` needs both; an
            average alone is that of many visits.
        progress: (B,): the share of the training steps that were taken, from 0 to 1.
        number: (B,): row numbers, int64; -1: not a training row.
        outputs: (B, C, *): the raw outputs themselves, as a constant.
    """

    memory: Tensor | None = None
    average: Tensor | None = None
    visits: Tensor | None = None
    progress: Tensor | None = None
    number: Tensor | None = None
    outputs: Tensor | None = None


class InnerState(NamedTuple):
    """Everything that an inner step updates: θ, the buffers, the optimizer's state."""

    params: Tensors
    buffers: Tensors
    optimizer: Any


class RowSample(NamedTuple):
    """Some rows of a batch of ``total`` rows, which stand for all of them.

    ``rows`` (M,): their row numbers. ``moments``: the whole batch's means and unbiased variances,
    (2, F) for each BatchNorm by its name.
    """

    rows: Tensor
    total: int
    moments: Tensors


class StoredStep(NamedTuple):
    """A finished inner step: the state before it, its batch and dropout key, and ∇_θ L_φ.

    ``sample`` holds the rows that derivatives are computed on; None: all rows of the batch.
    ``between``: where the batch has parts, the buffers before each of them except the first.
    """

    state: InnerState
    batch: Batch
    key: Tensor
    grads: Tensors
    sample: RowSample | None = None
    between: tuple[Tensors, ...] = ()


class ReplayStep(NamedTuple):
    """A finished inner step that is computed again when needed: its batch and dropout key."""

    batch: Batch
    key: Tensor


class MetaPoint(NamedTuple):
    """A place within an unroll where the task loss is computed as well.

    ``after``: the number k of inner steps before it, 1 ≤ k < K; ``weight``: its factor in the sum
    of the task losses; ``batch`` and ``key``: the meta-batch and its dropout key.
    """

    after: int
    weight: float
    batch: Batch
    key: Tensor


class MetaPass(NamedTuple):
    """A meta-batch, its dropout key, ∇_θ of the task loss on it, and the buffers before it.

    ``points`` are earlier places of the unroll where the task loss is computed as well.
    """

    batch: Batch
    key: Tensor
    adjoint: Tensors
    buffers: Tensors
    points: tuple[MetaPoint, ...] = ()


if not TYPE_CHECKING:  # with a __getattr__, any name would pass the type checker

    def __getattr__(name: str) -> Any:
        if name == "Judgement":
            message = "Judgement is now called MetaPass; the old name works until metaloss 0.3"
            warnings.warn(message, FutureWarning, stacklevel=2)
            return MetaPass
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Window(NamedTuple):
    """The batches of one meta-gradient: K training batches and the meta-batch after them.

    ``keys`` (one 0-d int64 tensor for each step) and ``meta_key`` determine the dropout masks.
    ``rows`` (one (B,) tensor for each step) are the row numbers of the training batches; None:
    they are not needed. ``progress`` (one () tensor for each step): see `Row`; None: no loss sees
    it. With ``points``, the meta-gradient is that of T(θ_K) + Σ weight · T(θ_after).
    """

    batches: tuple[Batch, ...]
    keys: tuple[Tensor, ...]
    meta_batch: Batch
    meta_key: Tensor
    rows: tuple[Tensor, ...] | None = None
    progress: tuple[Tensor, ...] | None = None
    points: tuple[MetaPoint, ...] = ()

    @property
    def steps(self) -> list[ReplayStep]:
        """The batch and the dropout key of each of the K steps."""
        return [ReplayStep(*step) for step in zip(self.batches, self.keys, strict=True)]


class StepLosses(NamedTuple):
    """The losses of one meta-gradient, as tensors on the device.

    Attributes:
        inner: (K,) learned loss of each step.
        train_task: (K,) task loss of the same predictions and training batches.
        meta_task: () task loss on the meta-batch after the last step.
    """

    inner: Tensor
    train_task: Tensor
    meta_task: Tensor


class MetaGradient(NamedTuple):
    """The result of an engine: d(task loss)/dφ, the state after the K steps, the losses.

    ``notes`` (K, B, 3) for the ledger of training rows, see `InnerProblem.noted`; None: there are
    none.
    """

    gradient: Tensors
    state: InnerState
    losses: StepLosses
    notes: Tensor | None = None
