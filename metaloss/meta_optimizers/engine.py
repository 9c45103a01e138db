"""The base of engines: the update rule of φ, by torchopt's pure transformations."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, NamedTuple

import torch
import torchopt
from torch import Tensor
from torch.utils import _pytree as pytree

from metaloss.contracts import GradientMetaOptimizer
from metaloss.errors import MetalossError, check_range
from metaloss.inner.optimizers.rates import RateSchedule, clipped, share_left
from metaloss.inner.problem import InnerProblem, Tangents
from metaloss.meta_optimizers.outer import OldMethods
from metaloss.types import MetaPass, ReplayStep, StoredStep, Tensors, Window


class Rule(Enum):
    """The update rule of φ; ``l2rw`` is not a step, but weighs the rows of each batch anew."""

    adam = "adam"
    sgd = "sgd"
    rmsprop = "rmsprop"
    l2rw = "l2rw"


class RuleState(NamedTuple):
    """The state of the update rule.

    Attributes:
        torchopt: torchopt's state.
        taken: The number of meta-steps so far, 0-d int64.
        shrink: The guard's factor of η, 0-d.
    """

    torchopt: Any
    taken: Tensor
    shrink: Tensor


@dataclass(frozen=True, kw_only=True)
class Engine(OldMethods, GradientMetaOptimizer):
    """The base of every engine, and its options: how φ moves along the meta-gradient.

    Attributes:
        stacks: Whether the engine supports several runs at once, as a `StackedProblem`.
        compiles: Whether its meta-gradient can be traced into one graph of plain operations.
        methods: The methods of differentiating a model that it can use, the cheapest first.

    Raises:
        MetalossError: If an option is out of range.

    Example:
        >>> from metaloss import Mixed
        >>> phi, gradient = {"w": torch.tensor(1.0)}, {"w": torch.tensor(2.0)}
        >>> engine = Mixed(rule=Rule.sgd, lr=0.25)
        >>> engine.rule_step(phi, gradient, engine.rule_init(phi), phase="train", total=10)[0]
        {'w': tensor(0.5000)}
    """

    stacks: ClassVar[bool] = False
    compiles: ClassVar[bool] = False
    methods: ClassVar[tuple[Tangents, ...]] = ()

    lr: float = field(
        default=3e-3,
        metadata={
            "help": "meta-learning rate η of online meta-steps, > 0",
            "needs": (lambda own: own.rule is not Rule.l2rw, "a rule that moves φ, such as adam"),
        },
    )
    offline_lr: float = field(
        default=1e-3, metadata={"help": "meta-learning rate η of offline meta-steps, > 0"}
    )
    rule: Rule = field(
        default=Rule.adam,
        metadata={"help": "update rule of φ: adam, sgd, rmsprop, or l2rw (rows weighed anew)"},
    )
    lr_schedule: RateSchedule = field(
        default=RateSchedule.constant,
        metadata={"help": "how η changes over a phase: constant, or cosine or linear to 0"},
    )
    clip: float = field(
        default=0.0, metadata={"help": "largest norm of the meta-gradient, ≥ 0; 0: no clipping"}
    )

    ema: float = field(
        default=0.0,
        metadata={
            "help": "decay of a moving average of φ over the meta-steps of training: the learned "
            "loss that the run ends with; 0: none"
        },
    )
    anchor: float = field(
        default=0.0,
        metadata={
            "help": "weight w ≥ 0 of φ's distance from its start, added to the task loss; 0: none"
        },
    )
    cosine: bool = field(
        default=True,
        metadata={
            "help": "log meta/cosine_to_exact at each evaluation if rows or judge_rows are below 1"
        },
    )

    def __post_init__(self) -> None:
        for option in ("lr", "offline_lr"):
            value = getattr(self, option)
            check_range(f"meta_optimizer.{option}", value, value > 0, "a positive number")
        if self.lr_schedule in (RateSchedule.step, RateSchedule.multistep):
            raise MetalossError(
                f"meta_optimizer.lr_schedule={self.lr_schedule.name}: expected constant, cosine or "
                "linear"
            )
        for option in ("clip", "anchor"):
            value = getattr(self, option)
            check_range(f"meta_optimizer.{option}", value, value >= 0, "a number ≥ 0")
        within = 0 <= self.ema < 1
        check_range("meta_optimizer.ema", self.ema, within, "a number in [0, 1), such as 0.99")

    def keeps(self, index: int, unroll: int) -> bool:
        """Return whether the record of step ``index`` contains the state (`StoredStep`).

        The first record always has it. A record without it (`ReplayStep`) is computed again.
        """
        return True

    def gradient_back(
        self,
        problem: InnerProblem,
        phi: Tensors,
        steps: Sequence[StoredStep | ReplayStep],
        meta_pass: MetaPass,
    ) -> Tensors:
        """Return d(task loss)/dφ through steps that were taken already.

        An engine that does not use the records takes the steps again.
        """
        first = steps[0]
        assert isinstance(first, StoredStep), "an unroll begins with a state"
        window = Window(
            tuple(step.batch for step in steps),
            tuple(step.key for step in steps),
            meta_pass.batch,
            meta_pass.key,
            points=meta_pass.points,
        )
        return self.meta_gradient(problem, phi, first.state, window).gradient

    def rule_init(self, phi: Tensors) -> RuleState:
        """Return the state before the first meta-step of a phase."""
        device = next(iter(phi.values())).device if phi else torch.device("cpu")
        return RuleState(
            torchopt=_transformation(self.rule).init(_ordered(phi)),
            taken=torch.zeros((), dtype=torch.int64, device=device),
            shrink=torch.ones((), device=device),
        )

    def rule_step(
        self, phi: Tensors, gradient: Tensors, state: RuleState, *, phase: str, total: int
    ) -> tuple[Tensors, RuleState]:
        """Return φ and the state after one meta-step. No argument is changed.

        Args:
            phi: φ by name.
            gradient: d(task loss)/dφ by name.
            state: The result of :meth:`rule_init` or of the step before.
            phase: ``"offline"`` or ``"train"``, which determines η.
            total: The number of meta-steps of the phase, for ``lr_schedule``.
        """
        gradient = clipped(gradient, self.clip)  # torchopt's function would wait for the device
        before, form = pytree.tree_flatten(state.torchopt)
        # Adam computes 1 − βᵗ in float64, as torch.optim does. With an integer t, torchopt computes
        # it in float32: four correct digits at t = 1, and the rest depends on the device.
        wide = [value if value.is_floating_point() else value.double() for value in before]
        # torchopt must not change the tensors of the caller.
        updates, rule = _transformation(self.rule).update(
            _ordered(gradient),
            pytree.tree_unflatten(wide, form),
            params=_ordered(phi),
            inplace=False,
        )
        after = zip(pytree.tree_leaves(rule), before, strict=True)
        rule = pytree.tree_unflatten([new.to(old.dtype) for new, old in after], form)
        eta = self._rate(state.taken, phase, total) * state.shrink
        # The cast is for 0-d parameters, which a float64 η would promote.
        new = {name: (value + eta * updates[name]).to(value.dtype) for name, value in phi.items()}
        return new, RuleState(rule, state.taken + 1, state.shrink)

    def _rate(self, count: Tensor, phase: str, total: int) -> Tensor:
        base = self.offline_lr if phase == "offline" else self.lr
        if self.lr_schedule is RateSchedule.constant:
            return torch.full((), base, dtype=torch.float64, device=count.device)
        total = max(total, 1)
        return base * share_left(self.lr_schedule, count.clamp(max=total), total)


@functools.cache
def _transformation(rule: Rule) -> Any:
    # η is applied in rule_step, so that schedule and guard can change it without synchronization.
    steps = {Rule.adam: torchopt.adam, Rule.rmsprop: torchopt.rmsprop}
    return steps.get(rule, torchopt.sgd)(lr=1.0)


def _ordered(tensors: Tensors) -> Tensors:
    # torchopt's state is a flat tuple in the order of the tree: keep the order fixed.
    return {name: tensors[name] for name in sorted(tensors)}
