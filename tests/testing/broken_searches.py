"""Searches that each break one rule."""

from dataclasses import dataclass, field

import torch

from metaloss.contracts import Candidate, Search, SearchMetaOptimizer
from metaloss.testing import SearchChecks

from .specimens import specimen


class Walk(Search):
    """Proposes random φ around the best one so far."""

    def __init__(self, loss, seed):
        self.best = {name: value.detach() for name, value in loss.named_parameters()}
        self.draws = torch.Generator().manual_seed(seed)
        self.asked = []

    def ask(self):
        self.asked = [self.near() for _ in range(3)]
        return [Candidate(phi=phi) for phi in self.asked]

    def near(self):
        return {k: v + torch.randn(v.shape, generator=self.draws) for k, v in self.best.items()}

    def tell(self, fitness):
        self.best = self.asked[min(range(3), key=lambda index: fitness[index])]


@dataclass(frozen=True, kw_only=True)
class Sound(SearchMetaOptimizer):
    width: int = field(default=1, metadata={"help": "not used"})

    kind = Walk

    def search(self, loss, task_loss, outputs, seed):
        return type(self).kind(loss, seed)


@specimen(SearchChecks, "test_candidates_can_be_made", "φ has shapes")
class Misshapen(Sound):
    class kind(Walk):
        def near(self):
            return {name: value[:1] for name, value in super().near().items()}


@specimen(SearchChecks, "test_candidates_can_be_made", "no candidates")
class Silent(Sound):
    class kind(Walk):
        def ask(self):
            return []


@specimen(SearchChecks, "test_seed_and_fitness_determine_the_candidates", "φ of generation 0")
class Unseeded(Sound):
    class kind(Walk):
        number = 0

        def __init__(self, loss, seed):
            Unseeded.kind.number += 1
            super().__init__(loss, seed + Unseeded.kind.number)


@specimen(SearchChecks, "test_seed_and_fitness_determine_the_candidates", "global random state")
class Careless(Sound):
    class kind(Walk):
        def near(self):
            return {name: value + torch.randn(()) for name, value in self.best.items()}


@specimen(SearchChecks, "test_a_failed_generation_does_not_end_the_search", "ZeroDivisionError")
class Hopeful(Sound):
    class kind(Walk):
        def tell(self, fitness):
            self.mean = 1 / sum(value < float("inf") for value in fitness)
