"""The configuration of a run, as one frozen value."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from metaloss.errors import MetalossError, check_range, check_whole
from metaloss.options import Options


class Precision(Enum):
    """The arithmetic of the network's forward passes. φ and meta-gradients stay in fp32.

    Attributes:
        fp32: Single precision.
        bf16: bfloat16, in the forward passes of training.
    """

    fp32 = "fp32"
    bf16 = "bf16"


class Compile(Enum):
    """Whether the training step is compiled.

    Attributes:
        auto: Decided before step 0, by how much work the steps are.
        on: Compiled, which takes minutes at the start.
        trace: Recorded as a graph of operations, but not compiled.
        off: Neither.
    """

    auto = "auto"
    on = "on"
    trace = "trace"
    off = "off"


# The functional form, because "raise" is a Python keyword; ``raise_`` is an alias for use in code.
GuardMode = Enum("GuardMode", {"on": "on", "off": "off", "raise": "raise", "raise_": "raise"})
GuardMode.__doc__ = """What happens at a step that is not finite or far out of line.

Attributes:
    on: The step is refused and reported, and the run recovers.
    off: Nothing is checked.
    raise: The run stops with a `DivergedError`.
"""


@dataclass(frozen=True, kw_only=True)
class Selected:
    """The name of a chosen part, and its options; ``asked``: whether words name the part."""

    name: str
    options: Any
    asked: bool = field(default=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Settings(Options):
    """The keys of a run that belong to no part, such as ``steps``.

    Raises:
        MetalossError: If a value is out of its range.

    Example:
        >>> Settings(steps=0)
        Traceback (most recent call last):
        metaloss.errors.MetalossError: steps=0: expected a whole number, at least 1
    """

    steps: int = field(
        default=2000, metadata={"help": "training steps, without those of an offline phase"}
    )
    seed: int = field(
        default=0,
        metadata={"help": "determines all random draws: split, weights, φ, batches, dropout"},
    )
    seeds: int = field(
        default=1,
        metadata={"help": "number of seeds to train together, beginning with seed"},
    )
    batch_size: int = field(default=64, metadata={"help": "rows of a training batch"})
    meta_batch_size: int = field(default=64, metadata={"help": "rows of a meta-batch"})
    log_every: int = field(default=50, metadata={"help": "steps between two journal lines"})
    eval_every: int = field(
        default=100, metadata={"help": "steps between two evaluations on validation and test"}
    )
    checkpoint_every: int = field(default=500, metadata={"help": "steps between two checkpoints"})
    output: str | None = field(
        default=None,
        metadata={"help": "the run's folder; null: a name from the config and the time"},
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda or cuda:N"})
    ema: float = field(
        default=0.0,
        metadata={
            "help": "decay of a moving average of the weights, such as 0.99: the run ends with the "
            "average; 0: none"
        },
    )
    precision: Precision = field(
        default=Precision.fp32, metadata={"help": "arithmetic of the network: fp32 or bf16"}
    )
    tf32: bool | None = field(
        default=None,
        metadata={"help": "use TF32 for fp32 products on CUDA; null: torch's own setting"},
    )
    channels_last: bool = field(
        default=False, metadata={"help": "store images and filters with channels last"}
    )
    compile: Compile = field(
        default=Compile.auto,
        metadata={
            "help": "compile the step: auto, on or off; trace: run its graph without compiling it"
        },
    )
    guard: GuardMode = field(
        default=GuardMode["on"],
        metadata={
            "help": "on: recover and report; raise: stop at the first bad step; off: no checks"
        },
    )
    ledger: bool = field(
        default=True,
        metadata={"help": "record how well each training row is predicted, for metaloss suspects"},
    )
    record_phi: int = field(
        default=100,
        metadata={
            "help": "how often φ is recorded while the network trains, for schedule=replay; 0: "
            "never, steps: at every step"
        },
    )
    deterministic: bool = field(
        default=False,
        metadata={"help": "refuse operations whose result may differ from run to run"},
    )

    def __post_init__(self) -> None:
        check_whole("seed", self.seed, 0)
        for name in ("steps", "seeds", "batch_size", "meta_batch_size"):
            check_whole(name, getattr(self, name), 1)
        for name in ("log_every", "eval_every", "checkpoint_every"):
            check_whole(name, getattr(self, name), 1)
        check_range("ema", self.ema, 0 <= self.ema < 1, "a number in [0, 1), such as 0.99")
        check_whole("record_phi", self.record_phi, 0)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise MetalossError(f"device={self.device}: expected auto, cpu, cuda or cuda:N")
        if self.output is not None and not self.output.strip():
            raise MetalossError("output='': expected a folder, or null for a default one")


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """The complete configuration of a run: one choice for each group, a value for each option.

    Attributes:
        task, model, loss, schedule, start, meta_optimizer, inner: The chosen parts.
        tracker: The options of each chosen tracker, by name.
    """

    task: Selected
    model: Selected
    loss: Selected
    schedule: Selected
    start: Selected
    meta_optimizer: Selected
    inner: Selected
    tracker: dict[str, Any] = field(default_factory=dict)
