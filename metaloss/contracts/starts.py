"""Where φ begins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from metaloss.types import Tensors

if TYPE_CHECKING:
    from metaloss.losses.base import LearnedLoss

Report = Callable[[int, Mapping[str, float]], None]


class Start(ABC):
    """How φ begins.

    Attributes:
        total: The steps that ``report`` counts to.
        discards: Whether the parameters that the loss has are thrown away.
    """

    total: int = 0
    discards: bool = True

    @abstractmethod
    def begin(
        self,
        loss: LearnedLoss,
        task_loss: Callable[[Tensor, Tensor], Tensor],
        outputs: int,
        seed: int,
        report: Report | None = None,
    ) -> Tensors:
        """Return the first φ for ``loss`` on a task with C = ``outputs``, changing nothing.

        ``loss`` holds freshly drawn or loaded parameters; ``seed`` decides every draw; ``report``
        is told (step, numbers) now and then, out of ``total`` steps.
        """

    def begin_together(
        self,
        losses: Sequence[LearnedLoss],
        task_loss: Callable[[Tensor, Tensor], Tensor],
        outputs: int,
        seeds: Sequence[int],
        reports: Sequence[Report],
    ) -> list[Tensors]:
        """Return what :meth:`begin` returns for each of many losses that are alike in structure.

        A start with work to do may do it for all at once.
        """
        return [
            self.begin(loss, task_loss, outputs, seed, report)
            for loss, seed, report in zip(losses, seeds, reports, strict=True)
        ]
