"""How φ is found without gradients."""

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
        options: Options of the loss's family that differ from the run's: its structure.
        phi: Its parameters; None: those that the loss has as it is built.
        text: For people, such as the expression.
        rejected: Why it is not to be trained, None if it is.
        known: Its fitness, if the search has met it before.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    phi: Tensors | None = None
    text: str = ""
    rejected: str | None = None
    known: float | None = None


class Search(ABC):
    """A search that is under way, by turns of :meth:`ask` and :meth:`tell`.

    A function of the seed and of what it was told alone: a stopped search is gone on with by
    telling a new one the same again.
    """

    @abstractmethod
    def ask(self) -> list[Candidate]:
        """Return the next generation."""

    @abstractmethod
    def tell(self, fitness: list[float]) -> None:
        """Take the fitness of each candidate of the last generation: lower is better, or inf."""


class SearchMetaOptimizer(MetaOptimizer, ABC):
    """A search without gradients over φ, and over structures of the loss, before training."""

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
            loss: As the config describes it; not changed.
            task_loss: What φ is judged by.
            outputs: C, the number of the model's outputs.
            seed: Decides every draw.

        Raises:
            MetalossError: If the search cannot handle this family of losses.
        """
