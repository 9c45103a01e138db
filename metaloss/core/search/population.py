"""Evaluates many candidate losses together, with one vectorised program of networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree as pytree

from metaloss import registry
from metaloss.core.parts.setup import Setup
from metaloss.core.steps.advance import Place, window
from metaloss.core.steps.step import meta_step
from metaloss.core.training.evaluate import constant_metric
from metaloss.core.training.ladder import learned_nothing
from metaloss.errors import MetalossError
from metaloss.inner.stacked import StackedProblem, stack
from metaloss.inner.steps import take_steps
from metaloss.inner.weighted import value_of
from metaloss.losses.base import LearnedLoss
from metaloss.meta_optimizers.engine import Engine
from metaloss.meta_optimizers.search import FitnessOf, SearchRule
from metaloss.types import InnerState, ReplayStep, Tensors

_ROWS_AT_ONCE = 1024
# The purposes of the random draws: every candidate of a search has the same weights and batches.
_LOCAL, _FITNESS = "offline", "search"
PHI = "phi"
# Before this step, even a good loss may be no better than a constant prediction.
FEWEST_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The result of a candidate: its fitness (lower is better), φ, and why it ended early."""

    fitness: float
    phi: Tensors
    ended: str | None = None


@dataclass(frozen=True, kw_only=True)
class PopulationProblem(StackedProblem):
    """Members with the same batches and different losses, of any structure.

    φ is one tensor (N, D) named ``"phi"``: each row has a member's parameters, followed by zeros.

    Attributes:
        losses: One for each member, or a single one that all share.
    """

    losses: tuple[LearnedLoss, ...]
    shares_batches: bool = True

    def learned_loss(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return L_φ of every member, (N,). Only the model is vectorised in any case."""
        targets = self.weighed(targets)
        if len(self.losses) == 1:
            loss = self.losses[0]
            return vmap(lambda row, out: _value(loss, row, out, targets))(phi[PHI], outputs)
        members = zip(self.losses, phi[PHI].unbind(), outputs.unbind(), strict=True)
        return torch.stack([_value(loss, row, out, targets) for loss, row, out in members])


def evaluate(
    setup: Setup, rule: SearchRule, losses: Sequence[LearnedLoss], phis: Sequence[Tensors]
) -> list[Evaluated]:
    """Return the fitness of each candidate. All are trained together.

    ``phis`` are used in place of the parameters of the ``losses``.
    """
    rows, problem = _problem(setup, losses, phis)
    if rule.local_steps and rows.shape[1]:
        rows = _locally_moved(setup, rule, problem, rows)
    fitness, ended = _trained(setup, rule, problem, rows)
    return [
        Evaluated(fitness=value, phi=unflat(loss, row), ended=why)
        for value, why, loss, row in zip(fitness, ended, losses, rows, strict=True)
    ]


def flat(loss: LearnedLoss, phi: Tensors) -> Tensor:
    """Return φ as one vector, in the order of the loss's parameters."""
    values = [phi[name].detach().reshape(-1) for name, _ in loss.named_parameters()]
    return torch.cat(values) if values else torch.empty(0)


def unflat(loss: LearnedLoss, row: Tensor) -> Tensors:
    """Return φ by name from the beginning of a vector."""
    phi, at = {}, 0
    for name, like in loss.named_parameters():
        phi[name] = row[at : at + like.numel()].view(like.shape)
        at += like.numel()
    return phi


def _value(loss: LearnedLoss, row: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
    return value_of(loss, unflat(loss, row), outputs, targets)


def _problem(
    setup: Setup, losses: Sequence[LearnedLoss], phis: Sequence[Tensors]
) -> tuple[Tensor, PopulationProblem]:
    vectors = [flat(loss, phi) for loss, phi in zip(losses, phis, strict=True)]
    rows = torch.zeros(len(vectors), max(len(vector) for vector in vectors))
    rows = rows.to(vectors[0])
    for index, vector in enumerate(vectors):
        rows[index, : len(vector)] = vector
    alike = all(loss.config == losses[0].config for loss in losses)
    shared = (losses[0],) if alike else tuple(losses)
    return rows, PopulationProblem.of(setup.problem, loss=losses[0], losses=shared, notes=None)


def _locally_moved(
    setup: Setup, rule: SearchRule, problem: PopulationProblem, rows: Tensor
) -> Tensor:
    """Update every φ by its meta-gradient, with new weights at each meta-step."""
    engine = local_engine(rule)
    phi = {PHI: rows}
    rule_state = stack([engine.rule_init({PHI: row}) for row in rows])

    for number in range(rule.local_steps):
        inner = _copies(setup.advance.fresh(_LOCAL, number), len(rows))
        places = [Place("offline", number), Place("meta/offline", number)]
        view = window(places, setup.advance.streams, setup.advance.key)
        moved = meta_step(
            problem, engine, phi, inner, rule_state, view, _LOCAL, total=rule.local_steps
        )
        phi, rule_state = moved.phi, moved.rule
    return phi[PHI].detach()


def _trained(
    setup: Setup, rule: SearchRule, problem: PopulationProblem, rows: Tensor
) -> tuple[list[float], list[str | None]]:
    """Train every member, and end bad ones early. Return fitness and reasons."""
    count = len(rows)
    fitness, ended = [math.inf] * count, [None] * count  # type: list[float], list[str | None]
    live = list(range(count))
    state = _copies(setup.advance.fresh(_FITNESS, 0), count)
    check = math.ceil(rule.early_end * rule.fitness_steps)
    for number in range(rule.fitness_steps):
        if number == check and check:
            hopeless = _hopeless(setup, problem, state, number)
            for index, why in hopeless.items():
                ended[live[index]] = f"{why} after {number} steps"
            kept = [index for index in range(len(live)) if index not in hopeless]
            if not kept:
                return fitness, ended
            live = [live[index] for index in kept]
            problem, rows, state = _some(problem, rows, state, kept)
        batch = setup.advance.streams["offline"][number]
        seen = ReplayStep(batch, setup.advance.key(_FITNESS, number))
        state = take_steps(problem, {PHI: rows}, state, [seen], keeps=lambda _: False).state
    scores = _scores(setup, problem, state, rule.fitness)
    for place, score in zip(live, scores, strict=True):
        fitness[place] = score
        if not math.isfinite(score):
            fitness[place], ended[place] = math.inf, "not finite"
    return fitness, ended


def _hopeless(
    setup: Setup, problem: PopulationProblem, state: InnerState, steps: int
) -> dict[int, str]:
    """Return which members cannot become the best after some steps, and why."""
    found = {}
    constant = constant_metric(setup.task) * _sign(setup)
    for index, score in enumerate(_scores(setup, problem, state, FitnessOf.metric)):
        if not math.isfinite(score):
            found[index] = "not finite"
        elif steps >= FEWEST_STEPS and score >= constant:
            found[index] = "no better than a constant prediction"
    return found


@torch.no_grad()
def _scores(
    setup: Setup, problem: PopulationProblem, state: InnerState, what: FitnessOf
) -> list[float]:
    """Return the score of every member on the validation rows; lower is better."""
    task, rows = setup.task, setup.task.valid

    def outputs_of(params: Tensors, buffers: Tensors, inputs: Tensor) -> Tensor:
        return problem.model(params, buffers, inputs, train=False)[0]

    blocks = [
        vmap(outputs_of, in_dims=(0, 0, None))(state.params, state.buffers, block.to(setup.device))
        for block in rows.inputs.split(_ROWS_AT_ONCE)
    ]
    outputs = torch.cat(blocks, 1)
    score = task.metric if what is FitnessOf.metric else task.weighted_loss
    sign = _sign(setup) if what is FitnessOf.metric else 1.0
    finite = outputs.flatten(1).isfinite().all(1).tolist()
    # A metric such as accuracy may be finite although an output is NaN.
    return [
        sign * float(score(out, rows.targets)) if ok else math.inf
        for out, ok in zip(outputs, finite, strict=True)
    ]


def no_better_than_constant(setup: Setup, fitness: float) -> bool:
    """Return whether a fitness is not better than that of the best constant prediction."""
    assert setup.search is not None
    if setup.search.fitness is FitnessOf.metric:
        return learned_nothing(fitness, constant_metric(setup.task) * _sign(setup))
    return learned_nothing(fitness, setup.task.constant_loss)


def _sign(setup: Setup) -> float:
    return 1.0 if setup.task.goal == "min" else -1.0


def _some(
    problem: PopulationProblem, rows: Tensor, state: InnerState, kept: list[int]
) -> tuple[PopulationProblem, Tensor, InnerState]:
    if len(problem.losses) > 1:
        problem = replace(problem, losses=tuple(problem.losses[index] for index in kept))
    return problem, rows[kept], pytree.tree_map(lambda leaf: leaf[kept], state)


def _copies(state: InnerState, count: int) -> InnerState:
    # Copies, because forward mode does not support views that overlap.
    return pytree.tree_map(lambda leaf: leaf.expand(count, *leaf.shape).clone(), state)


def local_engine(rule: SearchRule) -> Engine:
    """Return the engine that learns the parameters of the candidates.

    Raises:
        MetalossError: If it is not an engine, or does not support several runs at once.
    """
    part = registry.get("meta_optimizer", rule.local_engine)
    if not issubclass(part.cls, Engine) or not part.cls.stacks:
        raise MetalossError(
            f"meta_optimizer.local_engine={rule.local_engine}: expected an engine that takes many "
            "losses at once: mixed or finite_difference"
        )
    engine: Engine = part.config_class(offline_lr=rule.local_lr)
    return engine
