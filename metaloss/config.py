"""What a run is asked to do, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Precision(Enum):
    """Arithmetic of the base model's forward passes; φ and meta-gradients stay in fp32."""

    fp32 = "fp32"
    bf16 = "bf16"


class Compile(Enum):
    """Whether the meta-step is compiled; ``auto`` decides before step 0."""

    auto = "auto"
    on = "on"
    off = "off"


class GuardMode(Enum):
    """``on``: mend and report; ``raise``: stop at the first event; ``off``: no checks."""

    # Named so that the word in the config is the Python keyword's.
    on = "on"
    off = "off"
    raise_ = "raise"


@dataclass(frozen=True, kw_only=True)
class Selected:
    """A part chosen by name, with an instance of its options class."""

    name: str
    options: Any


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A run, resolved: every group has a choice, every option a value.

    Attributes:
        task, model, loss, schedule, start, meta_optimizer, inner: The chosen parts.
        tracker: The options of each chosen tracker, by name.
        steps: Training steps (the offline phase is counted apart).
        seed: Decides every draw: split, weights, φ, batches, dropout.
        batch_size: Rows of a training batch.
        meta_batch_size: Rows of a meta-batch.
        log_every: Steps between two journal lines.
        eval_every: Steps between two evaluations on validation and test.
        checkpoint_every: Steps between two checkpoints.
        output: The run's folder; made from the config and the time if None.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    """

    task: Selected
    model: Selected
    loss: Selected
    schedule: Selected
    start: Selected
    meta_optimizer: Selected
    inner: Selected
    tracker: dict[str, Any] = field(default_factory=dict)
    steps: int = 2000
    seed: int = 0
    batch_size: int = 64
    meta_batch_size: int = 64
    log_every: int = 50
    eval_every: int = 100
    checkpoint_every: int = 500
    output: str | None = None
    device: str = "auto"
    precision: Precision = Precision.fp32
    compile: Compile = Compile.auto
    guard: GuardMode = GuardMode.on
    deterministic: bool = False
