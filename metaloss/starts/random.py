"""Random: φ is drawn at random, as its family does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from metaloss.contracts import Report, Start
from metaloss.losses.base import LearnedLoss, phi_of
from metaloss.starts.keep import refuse_loaded
from metaloss.types import Tensors


@dataclass(frozen=True, kw_only=True)
class Random(Start):
    """Begin with the random parameters of a new loss, as ML³ and AdaLFL do.

    The gradient of a random loss may point anywhere, so that φ has to be learned offline first.

    Example:
        >>> from metaloss.losses import Taylor
        >>> sorted(Random().begin(Taylor(), None, outputs=10, seed=0))
        ['centre', 'coefficients']
    """

    def begin(
        self,
        loss: LearnedLoss,
        task_loss: Callable[[Tensor, Tensor], Tensor],
        outputs: int,
        seed: int,
        report: Report | None = None,
    ) -> Tensors:
        """Return copies of the parameters, which were drawn when the loss was made."""
        refuse_loaded(loss, "random")
        return phi_of(loss)
