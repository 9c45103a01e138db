"""The contract of a search: φ found without gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from metaloss.contracts.meta_optimizers import MetaOptimizer
from metaloss.types import Tensors

if TYPE_CHECKING:
    from metaloss.losses.base import LearnedLoss


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A loss that a search proposes.

    Attributes:
        options: The options of its family that differ from those of the run.
        phi: Its parameters; None: the initial ones.
        text: A description to show, such as the expression.
        rejected: The reason why it is not trained; None if it is trained.
        known: Its fitness, if the search knows it already.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    phi: Tensors | None = None
    text: str = ""
    rejected: str | None = None
    known: float | None = None


class Search(ABC):
    """A running search. :meth:`ask` and :meth:`tell` are called in turn.

    The candidates depend only on the seed and on the fitness values told so far. To resume a
    search, a new one is told the same values again.
    """

    @abstractmethod
    def ask(self) -> list[Candidate]:
        """Return the next generation."""

    @abstractmethod
    def tell(self, fitness: list[float]) -> None:
        """Take the fitness of each candidate of the last generation.

        Args:
            fitness: One number for each candidate, in order. Lower is better; ``inf``: it failed.
        """


class SearchMetaOptimizer(MetaOptimizer, ABC):
    """A search without gradients, before training: over φ, and perhaps over the loss's form."""

    @abstractmethod
    def search(
        self,
        loss: LearnedLoss,
        task_loss: Callable[[Tensor, Tensor], Tensor],
        outputs: int,
        seed: int,
    ) -> Search:
        """Return a new search.

        Args:
            loss: The loss that the config describes. It is not changed.
            task_loss: ``(raw outputs (B, C, *), targets) -> scalar``.
            outputs: C, the number of the model's outputs.
            seed: Determines all random draws.

        Raises:
            MetalossError: If the search does not support this family of losses.
        """
