"""The contract of a start: an initial φ that depends on the seed only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from metaloss.contracts import Start
from metaloss.losses import CrossEntropy, LearnedLoss, MLPLoss
from metaloss.losses.mlp import MLPLossConfig
from metaloss.testing.base import (
    Checks,
    nothing_changes,
    require,
    require_close,
    require_finite,
)
from metaloss.types import Link, Tensors

Beginning = tuple[Tensors, list[tuple[int, dict[str, float]]]]

_TASK_LOSSES: dict[Link, Callable[[Tensor, Tensor], Tensor]] = {
    Link.softmax: F.cross_entropy,
    Link.sigmoid: F.binary_cross_entropy_with_logits,
    Link.identity: F.mse_loss,
}


class StartChecks(Checks):
    """Checks of a start; ``make`` returns it.

    Example:
        >>> from metaloss.starts import Imitate
        >>> class TestImitate(StartChecks):
        ...     def make(self):
        ...         return Imitate(steps=10)
        >>> TestImitate().test_reports_count_up_to_the_total()
    """

    @cached_property
    def begun(self) -> dict[Link, Beginning]:
        """The results for a small loss with every link, computed once."""
        return {link: _begin(self.made(), _loss(link)) for link in Link}

    def test_phi_fits_the_loss(self) -> None:
        """φ has the loss's names, shapes and types, and is detached and finite."""
        for link, (phi, _) in self.begun.items():
            own = dict(_loss(link).named_parameters())
            require(phi.keys() == own.keys(), f"names {sorted(phi)}, expected {sorted(own)}")
            for name, value in phi.items():
                fits = value.shape == own[name].shape and value.dtype == own[name].dtype
                require(fits, f"{name!r} is {tuple(value.shape)} in {value.dtype}")
                require(not value.requires_grad, f"{name!r} is not detached")
            require_finite(phi, "φ")

    def test_nothing_changes(self) -> None:
        """The loss is not changed, the result is a copy, and the seed determines all draws."""
        loss = _loss(Link.softmax)
        with nothing_changes("begin()", loss):
            again, _ = _begin(self.made(), loss)
        phi, _ = self.begun[Link.softmax]
        require_close(again, phi, "the same seed", rtol=0, atol=0)
        with nothing_changes("writing into φ", loss), torch.no_grad():
            for value in again.values():
                value += 1

    def test_reports_count_up_to_the_total(self) -> None:
        """Reported steps grow up to ``total`` at most; reported values are plain numbers."""
        total = self.made().total
        for _, told in self.begun.values():
            steps = [step for step, _ in told]
            require(steps == sorted(set(steps)), f"reported steps: {steps}")
            require(all(0 < step <= total for step in steps), f"{steps} with total={total}")
            plain = all(type(n) in (int, float) for _, numbers in told for n in numbers.values())
            require(plain, "a reported value is neither int nor float")

    def test_a_loss_without_parameters_has_no_phi(self) -> None:
        """A hand-made loss gives an empty φ."""
        phi, _ = _begin(self.made(), CrossEntropy())
        require(phi == {}, "a loss without parameters gets a φ")


def _begin(start: Start, loss: LearnedLoss) -> Beginning:
    """Return φ, and the reports."""
    told: list[tuple[int, dict[str, float]]] = []

    def report(step: int, numbers: Mapping[str, float]) -> None:
        told.append((step, dict(numbers)))

    return start.begin(loss, _TASK_LOSSES[loss.link], 3, 7, report), told


def _loss(link: Link) -> LearnedLoss:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return MLPLoss(MLPLossConfig(hidden=[4]), link=link)
