"""Keep: φ is not changed, for a loss that was loaded or made by the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from metaloss.contracts import Report, Start
from metaloss.errors import MetalossError
from metaloss.losses.base import LearnedLoss, phi_of
from metaloss.types import Tensors


@dataclass(frozen=True, kw_only=True)
class Keep(Start):
    """Begin with the parameters that the loss already has.

    Example:
        >>> from metaloss.losses import Scaled
        >>> Keep().begin(Scaled(), None, outputs=10, seed=0)
        {'scale': tensor(1.)}
    """

    discards = False

    def begin(
        self,
        loss: LearnedLoss,
        task_loss: Callable[[Tensor, Tensor], Tensor],
        outputs: int,
        seed: int,
        report: Report | None = None,
    ) -> Tensors:
        """Return copies of the loss's parameters."""
        return phi_of(loss)


def moving(loss: LearnedLoss) -> list[str]:
    """Return the names of the parameters that are not frozen."""
    return [name for name, value in loss.named_parameters() if value.requires_grad]


def refuse_loaded(loss: LearnedLoss, start: str) -> None:
    """Raise if a start would replace the parameters of a loaded loss."""
    if loss.loaded:
        raise MetalossError(f"start={start} with loss=load: expected start=keep")
