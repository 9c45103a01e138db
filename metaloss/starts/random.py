"""φ begins as its family draws it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from metaloss.contracts import Report, Start
from metaloss.losses.base import LearnedLoss
from metaloss.starts.keep import current, refuse_loaded
from metaloss.types import Tensors


@dataclass(frozen=True, kw_only=True)
class Random(Start):
    """Begin with the random parameters that the family draws, as ML³ and AdaLFL do.

    A random loss can point anywhere: the offline phase has to make something of it.
    """

    def begin(
        self,
        loss: LearnedLoss,
        task_loss: Callable[[Tensor, Tensor], Tensor],
        outputs: int,
        seed: int,
        report: Report | None = None,
    ) -> Tensors:
        """Return the parameters as they were drawn when the loss was built."""
        refuse_loaded(loss, "random")
        return current(loss)
