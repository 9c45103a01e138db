"""The base of every loss: link, target encoding and reductions, written once."""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from metaloss.errors import MetalossError, unknown_name
from metaloss.types import Link


class ClassReduction(Enum):
    """How the C outputs of a row become one value: AdaLFL averages, cross-entropy sums."""

    mean = "mean"
    sum = "sum"


class LearnedLoss(nn.Module):
    """A loss with parameters φ, usable as a criterion in any training loop.

    A family writes :meth:`pointwise`; one that needs logits overrides :meth:`per_output`. φ is
    ``parameters()``; the structure is in ``config``.

    Args:
        config: The family's options, kept for export; any frozen dataclass.
        link: What turns raw outputs into the predictions that ``pointwise`` sees.
        class_reduction: How the outputs of a row are combined.
        ignore_index: Rows with this class index do not count.

    Attributes:
        family: The registered name, once built from the registry; what an export is filed under.
        loaded: Whether φ came from a file.
        given: Whether φ begins at values that mean what the config says, so that no start refits
            them.

    Example:
        >>> class Squared(LearnedLoss):
        ...     def pointwise(self, prediction, target):
        ...         return (prediction - target) ** 2
        >>> criterion = Squared(link="identity")
        >>> criterion(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)).item()
        5.0
    """

    family: str | None = None
    loaded: bool = False
    given: bool = False

    def __init__(
        self,
        config: Any = None,
        *,
        link: Link | str = Link.softmax,
        class_reduction: ClassReduction = ClassReduction.mean,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        self.config = config
        self.link = _as_link(link)
        self.class_reduction = class_reduction
        self.ignore_index = ignore_index

    def pointwise(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return ℓ_φ(prediction, target) element by element.

        Args:
            prediction: (B, C, *), after the link: probabilities, or values in regression.
            target: (B, C, *), one-hot (or soft) in classification, values in regression.

        Returns:
            (B, C, *), one value for each output.
        """
        raise TypeError(f"{type(self).__name__} must define pointwise() or per_output()")

    def per_output(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each output from the raw outputs; both arguments (B, C, *)."""
        return self.pointwise(apply_link(logits, self.link), target)

    def forward(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the scalar loss of a batch.

        Args:
            prediction: (B, C, *) raw outputs of the model, before the link; (B,) is read as C = 1.
            target: With the softmax link (B, *) class indices or (B, C, *) probabilities; with
                the others the shape of ``prediction``.
            weight: (B,) weights of the rows, non-negative; the mean becomes a weighted mean.

        Returns:
            A scalar: the (weighted) mean over rows; 0 if no row counts.

        Raises:
            MetalossError: If the shapes do not fit each other or the link.
        """
        if prediction.dim() == 1:
            prediction = prediction.unsqueeze(1)
            if self.link is not Link.softmax and target.dim() == 1:
                target = target.unsqueeze(1)
        encoded, counted = self._encode(prediction, target)
        values = self.per_output(prediction, encoded)
        rows = values.mean(1) if self.class_reduction is ClassReduction.mean else values.sum(1)
        if weight is not None:
            if weight.shape != prediction.shape[:1]:
                raise MetalossError(
                    f"weight has shape {tuple(weight.shape)}, expected one weight a row: "
                    f"({prediction.shape[0]},)"
                )
            spread = weight.reshape(-1, *[1] * (rows.dim() - 1)).to(rows.dtype)
            spread = spread.expand_as(rows)
            counted = spread if counted is None else counted.to(rows.dtype) * spread
        if counted is None:
            return rows.mean()
        counted = counted.to(rows.dtype)
        total = counted.sum()
        # No row may count (all ignored): the loss is then 0 and moves nothing.
        return (rows * counted).sum() / torch.where(total > 0, total, torch.ones_like(total))

    def _encode(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the targets as (B, C, *) and which rows count, None for all."""
        if target.shape == prediction.shape and (
            target.is_floating_point() or self.link is not Link.softmax
        ):
            return target.to(prediction.dtype), None
        indices_shape = prediction.shape[:1] + prediction.shape[2:]
        if (
            self.link is Link.softmax
            and not target.is_floating_point()
            and target.shape == indices_shape
        ):
            # Not F.one_hot: it neither vmaps nor traces.
            classes = torch.arange(prediction.shape[1], device=target.device)
            classes = classes.view(1, -1, *[1] * (target.dim() - 1))
            encoded = (target.unsqueeze(1) == classes).to(prediction.dtype)
            return encoded, target != self.ignore_index
        allowed = f"{tuple(prediction.shape)}"
        if self.link is Link.softmax:
            allowed = f"class indices {tuple(indices_shape)} or probabilities {allowed}"
        raise MetalossError(
            f"target has shape {tuple(target.shape)} and type {target.dtype}, expected {allowed} "
            f"for raw outputs of shape {tuple(prediction.shape)} with link={self.link.name}"
        )

    def latex(self) -> str | None:
        """Return ℓ(t, p) as it is now in LaTeX; None for a family that is no formula."""
        return None

    def python(self) -> str | None:
        """Return the source of ``criterion(outputs, target)``; None for one that is no formula."""
        return None

    def extra_repr(self) -> str:
        """Show the link and the reduction when printed."""
        return f"link={self.link.name}, class_reduction={self.class_reduction.name}"


def apply_link(logits: Tensor, link: Link) -> Tensor:
    """Return predictions for raw outputs (B, C, *): probabilities, or the values themselves."""
    if link is Link.softmax:
        return logits.softmax(1)
    return logits.sigmoid() if link is Link.sigmoid else logits


def _as_link(link: Link | str) -> Link:
    if isinstance(link, Link):
        return link
    if link not in Link.__members__:
        raise unknown_name("link", link, Link.__members__)
    return Link[link]
