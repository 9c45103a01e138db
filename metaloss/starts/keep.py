"""φ begins as it is: for a loss that was loaded, or that a user hands over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from metaloss.contracts import Report, Start
from metaloss.errors import MetalossError
from metaloss.losses.base import LearnedLoss
from metaloss.types import Tensors


@dataclass(frozen=True, kw_only=True)
class Keep(Start):
    """Begin with the parameters that the loss has."""

    @property
    def discards(self) -> bool:  # type: ignore[override]
        """False: they are kept."""
        return False

    def begin(
        self,
        loss: LearnedLoss,
        task_loss: Callable[[Tensor, Tensor], Tensor],
        outputs: int,
        seed: int,
        report: Report | None = None,
    ) -> Tensors:
        """Return copies of the loss's parameters."""
        return current(loss)


def current(loss: LearnedLoss) -> Tensors:
    """Return copies of φ as the module holds it."""
    return {name: value.detach().clone() for name, value in loss.named_parameters()}


def moving(loss: LearnedLoss) -> list[str]:
    """Return the names of the parameters that may move: those that are not frozen."""
    return [name for name, value in loss.named_parameters() if value.requires_grad]


def refuse_loaded(loss: LearnedLoss, start: str) -> None:
    """Raise rather than throw a loaded loss away."""
    if loss.loaded:
        raise MetalossError(
            f"start={start} would throw the loaded loss away: use start=keep with loss=load"
        )
