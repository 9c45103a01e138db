"""The contract of a search: valid candidates that depend on seed and fitness only."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch.nn import functional as F

from metaloss.contracts import Candidate, Search
from metaloss.errors import MetalossError
from metaloss.losses import LearnedLoss, MLPLoss, Symbolic, Taylor
from metaloss.losses.mlp import MLPLossConfig
from metaloss.testing.base import Checks, nothing_changes, require, require_close

OUTPUTS = 3


class SearchChecks(Checks):
    """Checks of a search; ``make`` returns its options, a `SearchMetaOptimizer`.

    The search is checked with the first of the losses ``taylor``, ``symbolic`` and ``mlp`` that it
    supports. Override :meth:`loss` for another one.

    Example:
        >>> from metaloss.contracts import SearchMetaOptimizer
        >>> class Same(Search):
        ...     def ask(self):
        ...         return [Candidate(), Candidate()]
        ...     def tell(self, fitness):
        ...         pass
        >>> class Nothing(SearchMetaOptimizer):
        ...     def search(self, loss, task_loss, outputs, seed):
        ...         return Same()
        >>> class TestNothing(SearchChecks):
        ...     def make(self):
        ...         return Nothing()
        >>> TestNothing().test_candidates_can_be_made()
    """

    def loss(self) -> LearnedLoss:
        """Return a loss that the search supports."""
        refused = []
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            for loss in (Taylor(), Symbolic(), MLPLoss(MLPLossConfig(hidden=[4]))):
                try:
                    self.made().search(loss, F.cross_entropy, OUTPUTS, 0)
                    return loss
                except MetalossError as error:
                    refused.append(str(error))
        raise AssertionError(f"override loss(): {refused[0]}")

    def test_candidates_can_be_made(self) -> None:
        """Options of a candidate are valid, and its φ has the names and shapes of its loss."""
        loss, search = self.loss(), self._search()
        for _ in range(2):
            candidates = search.ask()
            require(len(candidates) > 0, "ask() returns no candidates")
            for one in candidates:
                config = replace(loss.config, **one.options) if one.options else loss.config
                own = dict(type(loss)(config, link=loss.link).named_parameters())
                if one.phi is not None and one.rejected is None:
                    found = {name: tuple(value.shape) for name, value in one.phi.items()}
                    expected = {name: tuple(value.shape) for name, value in own.items()}
                    require(found == expected, f"φ has shapes {found}, expected {expected}")
            search.tell(_fitness(candidates))

    def test_seed_and_fitness_determine_the_candidates(self) -> None:
        """A new search that is told the same values asks the same, as a resumed run needs."""
        loss = self.loss()
        with nothing_changes("the search", loss):
            first, same = self._generations(), self._generations()
        for number, (one, other) in enumerate(zip(first, same, strict=True)):
            require(_forms(one) == _forms(other), f"generation {number} differs")
            found, again = ([candidate.phi for candidate in group] for group in (one, other))
            require_close(again, found, f"φ of generation {number}", rtol=0, atol=0)

    def test_a_failed_generation_does_not_end_the_search(self) -> None:
        """After a generation in which all candidates failed, the search goes on."""
        search = self._search()
        for _ in range(2):
            candidates = search.ask()
            search.tell([math.inf] * len(candidates))
        require(len(search.ask()) > 0, "ask() returns no candidates")

    def _search(self) -> Search:
        search: Search = self.made().search(self.loss(), F.cross_entropy, OUTPUTS, 7)
        return search

    def _generations(self) -> list[list[Candidate]]:
        search, found = self._search(), []
        for _ in range(3):
            found.append(search.ask())
            search.tell(_fitness(found[-1]))
        return found


def _fitness(candidates: list[Candidate]) -> list[float]:
    """Return made-up values: the second candidate is the best, and rejected ones failed."""
    return [
        math.inf if one.rejected else one.known if one.known is not None else abs(index - 1.0)
        for index, one in enumerate(candidates)
    ]


def _forms(candidates: list[Candidate]) -> list[object]:
    return [(dict(one.options), one.text, one.rejected, one.known) for one in candidates]
