"""The options of all searches."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from metaloss.contracts import SearchMetaOptimizer
from metaloss.errors import MetalossError, check_range


class FitnessOf(Enum):
    """Which number on the validation rows is a candidate's fitness."""

    metric = "metric"
    task_loss = "task_loss"


_LOCAL = (lambda own: own.local_steps, "meta_optimizer.local_steps, such as 250")


@dataclass(frozen=True, kw_only=True)
class SearchRule(SearchMetaOptimizer):
    """The options of all searches.

    Every candidate trains a network for ``fitness_steps`` steps, with the same initial weights and
    batches, so that its fitness does not depend on other candidates. With ``local_steps``, its
    parameters are first learned by meta-gradients, as in EvoMAL.

    Raises:
        MetalossError: If an option is out of range.
    """

    population: int = field(default=25, metadata={"help": "candidates in a generation"})
    generations: int = field(default=20, metadata={"help": "number of generations"})
    fitness_steps: int = field(
        default=500, metadata={"help": "training steps before a candidate is evaluated"}
    )
    fitness: FitnessOf = field(
        default=FitnessOf.metric,
        metadata={"help": "what is measured on the validation rows: metric or task_loss"},
    )
    early_end: float = field(
        default=0.25,
        metadata={"help": "share of the steps after which bad candidates end early; 0: never"},
    )
    local_steps: int = field(
        default=0,
        metadata={"help": "meta-steps on each candidate before it is evaluated"},
    )
    local_lr: float = field(
        default=1e-3, metadata={"help": "meta-learning rate η of local steps, > 0", "needs": _LOCAL}
    )
    local_engine: str = field(
        default="mixed",
        metadata={"help": "engine of local steps, such as mixed", "needs": _LOCAL},
    )
    group: int = field(
        default=25,
        metadata={"help": "candidates that are trained together in one vectorised program"},
    )
    workers: str = field(
        default="1",
        metadata={"help": "number of processes that train groups, or ray for a cluster"},
    )
    address: str | None = field(
        default=None, metadata={"help": "address of a Ray cluster; null: a local one"}
    )

    def __post_init__(self) -> None:
        for option in ("population", "generations", "fitness_steps", "group"):
            self._require(option, getattr(self, option) >= 1, "a number ≥ 1")
        self._require("local_steps", self.local_steps >= 0, "a number ≥ 0")
        self._require("local_lr", self.local_lr > 0, "a positive number")
        self._require("early_end", 0 <= self.early_end < 1, "a share in [0, 1)")
        name = self.workers.isidentifier()
        whole = self.workers.isascii() and self.workers.isdigit() and int(self.workers) >= 1
        self._require("workers", whole or name, "a number ≥ 1, or ray")
        if self.address is not None and not name:
            raise MetalossError(
                f"meta_optimizer.address={self.address} with workers={self.workers}: expected "
                "workers=ray"
            )

    def _require(self, option: str, holds: bool, expected: str) -> None:
        check_range(f"meta_optimizer.{option}", getattr(self, option), holds, expected)
