"""The contract of a start: the initial φ."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from metaloss.options import Options
from metaloss.types import Tensors

if TYPE_CHECKING:
    from metaloss.losses.base import LearnedLoss

Report = Callable[[int, Mapping[str, float]], None]
"""Called while a start runs, with the number of its step and its numbers by name."""


class Start(Options, ABC, group="start"):
    """How φ is initialised.

    Attributes:
        total: The number of steps, for ``report``.
        discards: Whether the parameters that the loss has are replaced.

    Example:
        >>> class Zero(Start):
        ...     def begin(self, loss, task_loss, outputs, seed, report=None):
        ...         return {name: 0 * p.detach() for name, p in loss.named_parameters()}
        >>> from metaloss.losses import Scaled
        >>> Zero().begin(Scaled(), None, outputs=10, seed=0)
        {'scale': tensor(0.)}
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
        """Return the initial φ.

        Args:
            loss: Holds new or loaded parameters. It is not changed.
            task_loss: ``(raw outputs (B, C, *), targets) -> scalar``.
            outputs: C, the number of the model's outputs.
            seed: Determines all random draws.
            report: Called with (step, numbers) from time to time; the steps go up to ``total``.

        Returns:
            Detached copies, by the names of the loss's parameters.
        """

    def begin_together(
        self,
        losses: Sequence[LearnedLoss],
        task_loss: Callable[[Tensor, Tensor], Tensor],
        outputs: int,
        seeds: Sequence[int],
        reports: Sequence[Report],
    ) -> list[Tensors]:
        """Return what :meth:`begin` returns, for each of several losses with the same options.

        A start that takes long may override this and compute all of them at once.
        """
        return [
            self.begin(loss, task_loss, outputs, seed, report)
            for loss, seed, report in zip(losses, seeds, reports, strict=True)
        ]
