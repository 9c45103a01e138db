"""Genetic programming over the expressions of a symbolic loss, as in EvoMAL."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from metaloss.contracts import Candidate, Search
from metaloss.errors import MetalossError
from metaloss.inner.keys import generator
from metaloss.losses.base import LearnedLoss
from metaloss.losses.symbolic import Expression, Symbolic
from metaloss.meta_optimizers.search import SearchRule
from metaloss.types import Tensors
from metaloss_evolution.screen import fingerprint, improves
from metaloss_evolution.variation import (
    crossed,
    drawing,
    mutated,
    random_expression,
    selected,
    with_both,
)


@dataclass(frozen=True, kw_only=True)
class GP(SearchRule):
    """Search the expression of ``loss=symbolic``.

    With ``local_steps=250``, the coefficients of each candidate are first learned by
    meta-gradients. This is EvoMAL. They are not inherited by its children; the best candidate is
    trained with them.

    A candidate with the same gradients as an earlier one gets its fitness and is not trained again.
    A candidate is rejected if raw outputs that follow its gradient get no better task loss.

    Raises:
        MetalossError: If an option is out of range.

    Reference:
        Raymond, Chen, Xue & Zhang, "Learning Symbolic Model-Agnostic Loss Functions via
        Meta-Learning", TPAMI 2023.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> from metaloss.losses import Symbolic
        >>> search = GP(population=6).search(Symbolic(), cross_entropy, outputs=10, seed=0)
        >>> candidates = search.ask()
        >>> len(candidates), all("t" in one.text and "p" in one.text for one in candidates)
        (6, True)
    """

    generations: int = field(default=50, metadata={"help": "number of generations, ≥ 1"})
    crossover: float = field(
        default=0.7, metadata={"help": "probability of a crossover of two parents"}
    )
    mutation: float = field(default=0.25, metadata={"help": "probability of a mutation of a child"})
    tournament: int = field(default=4, metadata={"help": "candidates in a tournament, ≥ 1"})
    elitism: float = field(
        default=0.05, metadata={"help": "share of the best that are kept; if > 0, at least one"}
    )
    height: int = field(default=10, metadata={"help": "largest height of a tree"})
    lowest: int = field(default=2, metadata={"help": "smallest height of the first trees"})
    highest: int = field(default=4, metadata={"help": "largest height of the first trees"})
    noise: float = field(
        default=1e-3,
        metadata={"help": "standard deviation of the coefficients before local steps"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("crossover", "mutation", "elitism"):
            self._require(option, 0 <= getattr(self, option) <= 1, "a share from 0 to 1")
        self._require("tournament", self.tournament >= 1, "a number ≥ 1")
        self._require("lowest", 1 <= self.lowest <= self.highest, "a height from 1 to highest")
        self._require("height", self.highest <= self.height <= 30, "a height from highest to 30")
        self._require("noise", 0 <= self.noise < 1, "a number in [0, 1)")

    def search(
        self,
        loss: LearnedLoss,
        task_loss: Callable[[Tensor, Tensor], Tensor],
        outputs: int,
        seed: int,
    ) -> Search:
        """Return a search over the expression of ``loss``; see the contract."""
        if not isinstance(loss, Symbolic):
            raise MetalossError(
                f"meta_optimizer=gp with loss={loss.family or type(loss).__name__}: expected "
                "loss=symbolic"
            )
        if self.local_steps and loss.coefficients is None:
            raise MetalossError(
                f"meta_optimizer.local_steps={self.local_steps} with loss.coefficients=false: "
                "expected 0, because there are no parameters"
            )
        return _GPSearch(self, loss, task_loss, outputs, seed)


class _GPSearch(Search):
    """The population, and the fitness of all earlier candidates by fingerprint."""

    def __init__(
        self,
        options: GP,
        loss: Symbolic,
        task_loss: Callable[[Tensor, Tensor], Tensor],
        outputs: int,
        seed: int,
    ) -> None:
        self._options, self._loss, self._seed = options, loss, seed
        self._task_loss, self._outputs = task_loss, outputs
        self._number = 0
        self._population: list[Expression] = []
        self._fitness: list[float] = []
        self._prints: list[str | None] = []
        self._archive: dict[str, float] = {}

    def ask(self) -> list[Candidate]:
        with drawing(self._seed, self._number) as draws:
            bred = self._bred() if self._population else self._first()
            self._population = [with_both(one, draws) for one in bred]
        self._prints = [fingerprint(one) for one in self._population]
        return [self._candidate(index) for index in range(len(self._population))]

    def tell(self, fitness: list[float]) -> None:
        for mark, value in zip(self._prints, fitness, strict=True):
            if mark is not None:
                # A duplicate within the generation was not trained.
                self._archive[mark] = min(value, self._archive.get(mark, math.inf))
        self._fitness = [math.inf if mark is None else self._archive[mark] for mark in self._prints]
        self._number += 1

    def _first(self) -> list[Expression]:
        options = self._options
        return [
            random_expression(options.lowest, options.highest) for _ in range(options.population)
        ]

    def _bred(self) -> list[Expression]:
        """Return the best ones unchanged, then children of selected parents."""
        options, population, fitness = self._options, self._population, self._fitness
        order = sorted(range(len(population)), key=lambda index: fitness[index])
        # At least one, so that the best loss so far is kept.
        elite = max(1, round(options.elitism * options.population)) if options.elitism else 0
        best = [population[index] for index in order[:elite]]
        parents = selected(population, fitness, options.population - elite, options.tournament)
        children: list[Expression] = []
        for at in range(0, len(parents), 2):
            children += self._children(parents[at : at + 2])
        return best + children

    def _children(self, parents: list[Expression]) -> list[Expression]:
        import random

        options, children = self._options, list(parents)
        if len(children) == 2 and random.random() < options.crossover:
            children = list(crossed(*children))
        children = [mutated(one) if random.random() < options.mutation else one for one in children]
        # A child that is too high is replaced by its parent, as in Koza's work.
        return [
            child if child.height <= options.height else parent
            for child, parent in zip(children, parents, strict=True)
        ]

    def _candidate(self, index: int) -> Candidate:
        expression, mark = self._population[index], self._prints[index]
        text = str(expression)
        options = {"expression": text}
        if mark is None:
            why = "its gradient is 0 or not finite"
            return Candidate(options=options, text=text, rejected=why)
        if math.isfinite(known := self._archive.get(mark, math.nan)):
            return Candidate(options=options, text=text, known=known)
        if mark in self._archive:
            why = "the same gradients as an earlier candidate that failed"
            return Candidate(options=options, text=text, rejected=why)
        if mark in self._prints[:index]:
            why = f"the same gradients as candidate {self._prints.index(mark)}"
            return Candidate(options=options, text=text, rejected=why)
        config = replace(self._loss.config, expression=text, noise=0.0)
        own = self._loss
        with torch.random.fork_rng(devices=[]):  # the constructor draws coefficients
            loss = Symbolic(config, link=own.link, ignore_index=own.ignore_index)
        if not improves(loss, self._task_loss, self._outputs):
            why = "outputs that follow its gradient get no better"
            return Candidate(options=options, text=text, rejected=why)
        return Candidate(options=options, text=text, phi=self._phi(expression))

    def _phi(self, expression: Expression) -> Tensors:
        """Return coefficients of 1, plus noise if local steps follow."""
        if self._loss.coefficients is None:
            return {}
        phi = torch.ones(expression.size - 1)
        if self._options.local_steps:
            # Seeded by the expression, so that its fitness does not depend on its position.
            draws = generator(self._seed, f"evolution/{expression}")
            phi = phi + self._options.noise * torch.randn(len(phi), generator=draws)
        return {"coefficients": phi.to(self._loss.coefficients.dtype)}
