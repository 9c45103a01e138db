"""The values that travel through a run. All are tuples of tensors: pytrees, never mutated.

Shape letters: B batch, C outputs (classes or regression targets), K unroll, ``*`` any further
dimensions.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

from torch import Tensor

Tensors = dict[str, Tensor]


class Link(Enum):
    """How a model's raw outputs become predictions: what the learned loss looks at."""

    softmax = "softmax"
    sigmoid = "sigmoid"
    identity = "identity"


class Batch(NamedTuple):
    """Rows of a task. ``inputs`` (B, ...); ``targets`` (B, *) class indices or (B, C, *) values."""

    inputs: Tensor
    targets: Tensor


class InnerState(NamedTuple):
    """Everything that an inner step reads and renews: θ, the buffers, the optimizer's state."""

    params: Tensors
    buffers: Tensors
    optimizer: Any


class StoredStep(NamedTuple):
    """An inner step that was taken: the state before it, what it saw, and ∇_θ L_φ there."""

    state: InnerState
    batch: Batch
    key: Tensor
    grads: Tensors


class ReplayStep(NamedTuple):
    """An inner step that was taken and can be taken again: what it saw, without its state."""

    batch: Batch
    key: Tensor


class Judgement(NamedTuple):
    """Who judged the steps before, and how: the meta-batch, its key, ∇_θ of the task loss."""

    batch: Batch
    key: Tensor
    adjoint: Tensors


class Window(NamedTuple):
    """What one meta-gradient looks through: K training batches, then the batch that judges.

    ``keys`` (one 0-d int64 tensor a step) and ``meta_key`` decide the dropout masks.
    """

    batches: tuple[Batch, ...]
    keys: tuple[Tensor, ...]
    meta_batch: Batch
    meta_key: Tensor


class StepLosses(NamedTuple):
    """What was seen on the way, as tensors on the device (no host sync).

    ``inner`` (K,): learned loss of each step. ``train_task`` (K,): task loss on the same training
    batches and predictions. ``meta_task`` (): task loss on the meta-batch after the last step.
    """

    inner: Tensor
    train_task: Tensor
    meta_task: Tensor


class MetaGradient(NamedTuple):
    """An engine's answer: d(task loss)/dφ, the state after the K steps, the losses."""

    gradient: Tensors
    state: InnerState
    losses: StepLosses
