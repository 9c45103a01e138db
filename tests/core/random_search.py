"""A search that draws Taylor losses at random, of two orders: small, and deterministic."""

from dataclasses import dataclass

import torch

from metaloss.contracts import Candidate, Search
from metaloss.inner.keys import generator
from metaloss.losses import Taylor
from metaloss.losses.taylor import TaylorConfig
from metaloss.meta_optimizers.search import SearchRule


@dataclass(frozen=True, kw_only=True)
class Draws(SearchRule):
    """Candidates around the slope −t, of order 2 and 3 by turns."""

    def search(self, loss, task_loss, outputs, seed):
        return _Drawing(self, seed)


class _Drawing(Search):
    def __init__(self, options, seed):
        self._options, self._seed, self.told = options, seed, []

    def ask(self):
        count = self._options.population
        return [self._candidate(count * len(self.told) + k) for k in range(count)]

    def tell(self, fitness):
        self.told.append(fitness)

    def _candidate(self, number):
        if number % 7 == 5:
            return Candidate(text="none", rejected="every seventh is")
        order = 2 + number % 2
        return Candidate(
            options={"order": order}, phi=phi(order, self._seed, number), text=str(number)
        )


def phi(order, seed, number, dtype=torch.float32):
    """Return −t·p with noise: a loss that trains."""
    powers = Taylor(TaylorConfig(order=order)).powers
    draw = generator(seed, "draws", number)
    coefficients = 0.3 * torch.randn(len(powers), generator=draw)
    coefficients[powers.index((1, 1))] += 12.0
    centre = 0.1 * torch.randn(2, generator=draw)
    return {"coefficients": coefficients.to(dtype), "centre": centre.to(dtype)}
