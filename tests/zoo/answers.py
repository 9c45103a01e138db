"""What an engine makes of a kind: right, refused with a way out, wrong, or broken."""

from __future__ import annotations

import contextlib
import copy
import math
import re
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

import metaloss
from metaloss.errors import MetalossError, UnsupportedError
from metaloss.inner import SGD, Adam
from metaloss.meta_optimizers.finite_difference import FiniteDifference
from metaloss.meta_optimizers.higher import Higher
from metaloss.meta_optimizers.mixed import Mixed
from metaloss.meta_optimizers.torchopt import TorchOpt

from . import oracle
from .kind import Kind, Truth

# Differences with ε = 0.01 are good to a few digits; with this, rounding and curvature balance.
ENGINES = {
    "mixed": Mixed(),
    "torchopt": TorchOpt(),
    "higher": Higher(),
    "finite_difference": FiniteDifference(epsilon=1e-6),
}
INNER = {
    "sgd": SGD(lr=oracle.RATE, momentum=0.0),
    "adam": Adam(lr=oracle.RATE, eps=0.1),
}
EXACT, CLOSE, BY_DIFFERENCES = 1e-9, 1e-5, 1e-5
NAMES = re.compile(r"meta_optimizer=(\w+)(?:, (\w+))?(?: or (\w+))?")


@dataclass(frozen=True)
class Outcome:
    """``right``, ``refused``, ``wrong`` or ``broken``, and what was seen."""

    word: str
    detail: str = ""

    def named(self) -> list[str]:
        """Return the engines that a refusal says will do."""
        said = self.detail.split("use ", 1)[-1] if "use " in self.detail else ""
        return [name for found in NAMES.findall(said) for name in found if name in ENGINES]


@dataclass(frozen=True)
class Reference:
    """A gradient, and its products with directions: one of them, both, or either.

    Over several steps the slope of a backward that is not forward's own can be taken in two ways:
    as torch's graph states it, or as it changes with θ. They differ, and each has a meaning.
    """

    gradient: dict[str, Tensor] | None
    products: Tensor | None
    directions: list[dict[str, Tensor]]
    either: bool = False

    def errors(self, given: dict[str, Tensor]) -> tuple[float, float]:
        """Return how far a gradient and its products are off, relative to the reference."""
        whole = products = 0.0
        if self.gradient is not None:
            flat = torch.cat([value.flatten() for value in self.gradient.values()])
            whole = _off(torch.cat([given[name].flatten() for name in self.gradient]), flat)
        if self.products is not None:
            seen = torch.stack([oracle.along(given, d) for d in self.directions])
            products = _off(seen, self.products)
        return whole, products


def _off(given: Tensor, right: Tensor) -> float:
    assert right.norm() > 0, f"the reference is {float(right.norm())}"
    return float((given - right).norm() / right.norm())


def answer(
    kind: Kind,
    engine: str,
    steps: int,
    optimizer: str = "sgd",
    *,
    model=None,
    loss=None,
    batches=None,
) -> dict[str, Tensor]:
    """Return metaloss' meta-gradient; what is given takes the place of what is made afresh."""
    *pairs, meta = batches or kind.batches(steps + 1)
    return metaloss.meta_gradient(
        model or kind.model(),
        loss or oracle.learned_loss(),
        pairs,
        meta,
        inner=INNER[optimizer],
        task_loss=oracle.task_loss,
        engine=ENGINES[engine],
    )


@cache
def reference(kind: Kind, steps: int, optimizer: str = "sgd") -> Reference:
    """Return what is right for a kind."""
    *pairs, meta = kind.batches(steps + 1)
    loss = oracle.learned_loss()
    directions = oracle.directions(loss, 1 if kind.truth is Truth.own else 2)
    gradient = products = None
    if kind.truth in (Truth.unroll, Truth.graph):
        gradient = oracle.graph(kind.plain_model, loss, pairs, meta, optimizer)
        if kind.truth is Truth.graph and kind.smooth:
            products = oracle.pushed(kind.plain_model, loss, pairs, meta, 2, optimizer)
    elif kind.truth is Truth.differences:
        # After one step θ is smooth in φ, whatever cliffs the model has.
        slopes = oracle.pushed if steps == 1 else oracle.differences
        products = slopes(kind.plain_model, loss, pairs, meta, 2, optimizer)
    else:
        with contextlib.suppress(UnsupportedError):
            gradient = answer(kind, "torchopt", steps, optimizer)
        if kind.truth is Truth.own:
            products = torch.stack(
                [
                    oracle.difference(
                        lambda at: learners_task_loss(kind, at, pairs, meta, optimizer), loss, d
                    )
                    for d in directions
                ]
            )
    either = steps > 1 and kind.truth is Truth.graph
    return Reference(gradient, products, directions, either)


def learners_task_loss(kind: Kind, loss: nn.Module, pairs, meta, optimizer: str) -> Tensor:
    """Return the task loss that a learner reports after its steps under a loss."""
    learner = metaloss.Learner(
        kind.model(),
        copy.deepcopy(loss),
        task_loss=oracle.task_loss,
        inner=INNER[optimizer],
        meta_optimizer=ENGINES["finite_difference"],
    )
    return learner.step(pairs, meta).meta_task.clone()


@cache
def outcome(kind: Kind, engine: str, steps: int, optimizer: str = "sgd") -> Outcome:
    """Return what an engine makes of a kind."""
    try:
        given = answer(kind, engine, steps, optimizer)
    except MetalossError as error:
        line = str(error)
        return Outcome("refused" if "\n" not in line and len(line) < 500 else "broken", line)
    except Exception as error:
        return Outcome(
            "broken", f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
        )
    try:
        right = reference(kind, steps, optimizer)
        whole, products = right.errors(given)
    except Exception as error:
        return Outcome("no reference", f"{type(error).__name__}: {str(error)[:200]}")
    allowed = CLOSE if engine == "finite_difference" else EXACT
    allowed = max(allowed, kind.tolerance or 0.0)
    if engine == "finite_difference" and not (kind.smooth or kind.half):
        allowed = math.inf
    verdicts = whole <= allowed, products <= max(allowed, BY_DIFFERENCES)
    found = any(verdicts) if right.either else all(verdicts)
    return Outcome("right" if found else "wrong", f"{max(whole, products):.1e}")
