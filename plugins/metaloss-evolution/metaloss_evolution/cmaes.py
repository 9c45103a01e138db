"""CMA-ES over the parameters of a loss."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metaloss.contracts import Candidate, Search
from metaloss.errors import MetalossError
from metaloss.losses.base import LearnedLoss, phi_of
from metaloss.meta_optimizers.search import SearchRule
from metaloss.types import Tensors

_MOST_PARAMETERS = 1000


class Centre(Enum):
    """Where the search begins: at 0, or at the initial parameters of the loss."""

    zero = "zero"
    start = "start"


@dataclass(frozen=True, kw_only=True)
class CMAES(SearchRule):
    """Search φ by CMA-ES. With ``loss=taylor`` this is TaylorGLO.

    A candidate that cannot be trained counts as worse than all others.

    Raises:
        MetalossError: If an option is out of range.

    Reference:
        Gonzalez & Miikkulainen, "Optimizing Loss Functions Through Multivariate Taylor Polynomial
        Parameterization", 2021. Hansen & Ostermeier, "Completely Derandomized Self-Adaptation in
        Evolution Strategies", 2001. Computed by the package ``cma``.

    Example:
        >>> from metaloss.losses import Taylor
        >>> search = CMAES(population=4).search(Taylor(), None, outputs=10, seed=0)
        >>> candidates = search.ask()
        >>> len(candidates), sorted(candidates[0].phi)
        (4, ['centre', 'coefficients'])
        >>> search.tell([0.5, 0.1, 0.3, float("inf")])
    """

    sigma: float = field(default=1.2, metadata={"help": "initial standard deviation, > 0"})
    centre: Centre = field(
        default=Centre.zero, metadata={"help": "where the search begins: zero or start"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("sigma", self.sigma > 0, "a positive number")
        self._require("population", self.population >= 2, "a number ≥ 2")

    def search(
        self,
        loss: LearnedLoss,
        task_loss: Callable[[Tensor, Tensor], Tensor] | None,
        outputs: int,
        seed: int,
    ) -> Search:
        """Return a search over the φ of ``loss``; see the contract."""
        count = sum(value.numel() for value in loss.parameters())
        if not 2 <= count <= _MOST_PARAMETERS:
            raise MetalossError(
                f"meta_optimizer=cmaes with a loss of {count} parameters: expected 2 to "
                f"{_MOST_PARAMETERS}; use loss=taylor, or an engine such as meta_optimizer=mixed"
            )
        return _CMASearch(self, loss, seed)


class _CMASearch(Search):
    """The search of the package ``cma``, with a seeded generator."""

    def __init__(self, options: CMAES, loss: LearnedLoss, seed: int) -> None:
        self._like = phi_of(loss)
        begin = np.concatenate(
            [value.cpu().double().numpy().ravel() for value in self._like.values()]
        )
        if options.centre is Centre.zero:
            begin = np.zeros_like(begin)
        self._strategy = _strategy(begin, options, seed)
        self._asked: list[Any] = []

    def ask(self) -> list[Candidate]:
        self._asked = self._strategy.ask()
        return [
            Candidate(phi=self._phi(row), text=" ".join(f"{value:.6g}" for value in row))
            for row in self._asked
        ]

    def tell(self, fitness: list[float]) -> None:
        finite = [value for value in fitness if math.isfinite(value)]
        if not finite:
            # The distribution stays; the next generation is another draw.
            return
        # cma does not accept infinities. Only the ranks matter.
        worst = max(finite) + 1.0
        values = [value if math.isfinite(value) else worst for value in fitness]
        self._strategy.tell(self._asked, values)

    def _phi(self, row: Any) -> Tensors:
        phi, at = {}, 0
        for name, like in self._like.items():
            values = torch.tensor(np.asarray(row[at : at + like.numel()])).to(like)
            phi[name] = values.view(like.shape)
            at += like.numel()
        return phi


def _strategy(begin: Any, options: CMAES, seed: int) -> Any:
    with warnings.catch_warnings():
        # Optional parts of cma warn at import.
        warnings.simplefilter("ignore")
        import cma

        draws = np.random.default_rng(np.random.SeedSequence(entropy=(seed, 0xC3A)))
        return cma.CMAEvolutionStrategy(
            begin,
            options.sigma,
            {
                "popsize": options.population,
                # With a seed, cma would seed numpy's global generator.
                "seed": float("nan"),
                "randn": lambda *shape: draws.standard_normal(shape),
                "verbose": -9,
            },
        )
