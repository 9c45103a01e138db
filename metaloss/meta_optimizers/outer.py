"""How φ moves along its meta-gradient: torchopt's pure transformations."""

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
from metaloss.errors import MetalossError
from metaloss.inner.norms import norm
from metaloss.inner.optimizers.rates import RateSchedule, share_left
from metaloss.inner.problem import InnerProblem, Tangents
from metaloss.types import Judgement, ReplayStep, StoredStep, Tensors, Window


class Rule(Enum):
    """The update rule of φ."""

    adam = "adam"
    sgd = "sgd"
    rmsprop = "rmsprop"


class OuterState(NamedTuple):
    """``rule``: torchopt's state; ``taken``: meta-steps so far; ``shrink``: the guard's factor."""

    rule: Any
    taken: Tensor
    shrink: Tensor


@dataclass(frozen=True, kw_only=True)
class OuterRule(GradientMetaOptimizer):
    """The options of every gradient engine: how φ moves along the meta-gradient.

    Attributes:
        stacks: Whether the engine takes many independent runs at once, as a `StackedProblem`.
        compiles: Whether its meta-gradient can be traced into one graph of plain operations.
        methods: The ways to differentiate a model that it can use, the cheapest first.
    """

    stacks: ClassVar[bool] = False
    compiles: ClassVar[bool] = False
    methods: ClassVar[tuple[Tangents, ...]] = ()

    lr: float = field(default=3e-3, metadata={"help": "η while training online"})
    offline_lr: float = field(default=1e-3, metadata={"help": "η of the offline meta-steps"})
    rule: Rule = field(
        default=Rule.adam, metadata={"help": "update rule of φ: adam, sgd or rmsprop"}
    )
    lr_schedule: RateSchedule = field(
        default=RateSchedule.constant,
        metadata={"help": "how η changes over a phase: constant, or cosine or linear to 0"},
    )
    clip: float = field(
        default=0.0, metadata={"help": "largest norm of the meta-gradient; 0: not clipped"}
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        for option in ("lr", "offline_lr"):
            if not getattr(self, option) > 0:
                raise MetalossError(
                    f"meta_optimizer.{option}={getattr(self, option)}: expected a positive number"
                )
        if self.lr_schedule in (RateSchedule.step, RateSchedule.multistep):
            raise MetalossError(
                f"meta_optimizer.lr_schedule={self.lr_schedule.name}: expected constant, cosine or "
                "linear"
            )
        if not self.clip >= 0:
            raise MetalossError(f"meta_optimizer.clip={self.clip}: expected a number ≥ 0")

    def keeps(self, index: int, unroll: int) -> bool:
        """Return whether the record of a step of an unroll holds the step's state (`StoredStep`).

        The first one's always does. What is not kept (`ReplayStep`) is taken again.
        """
        return True

    def gradient_back(
        self,
        problem: InnerProblem,
        phi: Tensors,
        steps: Sequence[StoredStep | ReplayStep],
        judgement: Judgement,
    ) -> Tensors:
        """Return d(task loss)/dφ through steps that were taken before they were judged.

        An engine that keeps no records of its own takes them again.
        """
        first = steps[0]
        assert isinstance(first, StoredStep), "an unroll begins with a state"
        window = Window(
            tuple(step.batch for step in steps),
            tuple(step.key for step in steps),
            judgement.batch,
            judgement.key,
        )
        return self.meta_gradient(problem, phi, first.state, window).gradient

    def outer_init(self, phi: Tensors) -> OuterState:
        """Return the state before the first meta-step of a phase."""
        device = next(iter(phi.values())).device if phi else torch.device("cpu")
        return OuterState(
            rule=_transformation(self.rule).init(_ordered(phi)),
            taken=torch.zeros((), dtype=torch.int64, device=device),
            shrink=torch.ones((), device=device),
        )

    def outer_step(
        self, phi: Tensors, gradient: Tensors, state: OuterState, *, phase: str, total: int
    ) -> tuple[Tensors, OuterState]:
        """Return φ and the state after one meta-step. Pure.

        Args:
            phi: φ by name.
            gradient: d(task loss)/dφ by name.
            state: From :meth:`outer_init` or the step before.
            phase: ``"offline"`` or ``"train"``: which η.
            total: Meta-steps in the phase, for ``lr_schedule``.
        """
        if self.clip:
            gradient = _clipped(gradient, self.clip)
        before, form = pytree.tree_flatten(state.rule)
        # torchopt is to raise Adam's β to a float64 power, as torch.optim does. Of an integer it
        # takes 1 − βᵗ in fp32: 0.001 to four digits, which differ by device.
        wide = [value if value.is_floating_point() else value.double() for value in before]
        # The rule's own arithmetic must not touch the caller's.
        updates, rule = _transformation(self.rule).update(
            _ordered(gradient),
            pytree.tree_unflatten(wide, form),
            params=_ordered(phi),
            inplace=False,
        )
        after = zip(pytree.tree_leaves(rule), before, strict=True)
        rule = pytree.tree_unflatten([new.to(old.dtype) for new, old in after], form)
        eta = self._rate(state.taken, phase, total) * state.shrink
        # A float64 η promotes nothing but φ without dimensions: hence the cast.
        new = {name: (value + eta * updates[name]).to(value.dtype) for name, value in phi.items()}
        return new, OuterState(rule, state.taken + 1, state.shrink)

    def _rate(self, count: Tensor, phase: str, total: int) -> Tensor:
        base = self.offline_lr if phase == "offline" else self.lr
        if self.lr_schedule is RateSchedule.constant:
            return torch.full((), base, dtype=torch.float64, device=count.device)
        total = max(total, 1)
        return base * share_left(self.lr_schedule, count.clamp(max=total), total)


@functools.cache
def _transformation(rule: Rule) -> Any:
    # η is applied outside, so that the schedule and the guard can move it without host syncs.
    return {Rule.adam: torchopt.adam, Rule.sgd: torchopt.sgd, Rule.rmsprop: torchopt.rmsprop}[rule](
        lr=1.0
    )


def _clipped(gradient: Tensors, largest: float) -> Tensors:
    """Scale a gradient down to a norm; not torchopt's, which reads the norm on the host."""
    scale = (largest / (norm(gradient.values()) + 1e-6)).clamp(max=1.0)
    return {name: value * scale for name, value in gradient.items()}


def _ordered(tensors: Tensors) -> Tensors:
    # torchopt keeps its state as a flat tuple in the order of the tree: always the same one.
    return {name: tensors[name] for name in sorted(tensors)}
