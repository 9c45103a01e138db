"""The base class of all losses: link, encoding of targets, weights and reductions."""

from __future__ import annotations

from contextlib import nullcontext
from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metaloss.errors import MetalossError, check_index, unknown_name
from metaloss.losses.precision import (
    check_outputs,
    computing_type,
    in_type,
    without_autocast,
)
from metaloss.losses.rows import completed
from metaloss.losses.targets import (
    check_target,
    encode,
    out_of_range,
    readable,
    refuse_out_of_range,
)
from metaloss.types import Link, Row, Tensors

# The default of torch's cross-entropy.
IGNORED = -100


class ClassReduction(Enum):
    """How the C values of a row become one.

    Attributes:
        mean: Their mean, as in AdaLFL.
        sum: Their sum, as in cross-entropy.
    """

    mean = "mean"
    sum = "sum"


class Weighed(NamedTuple):
    """Losses (B, *) of rows and their weights (B, *) ≥ 0, for a weighted mean; see `per_row`."""

    values: Tensor
    weights: Tensor


class LearnedLoss(nn.Module):
    """A loss with parameters φ, usable as a criterion in any training loop.

    A family of losses defines :meth:`pointwise`, or :meth:`per_output` if it needs raw outputs, or
    :meth:`per_row` if it needs all outputs of a row together, or more than outputs and targets. φ
    is ``parameters()``; ``config`` has the options.

    Args:
        config: The family's options, a frozen dataclass. An export stores them. None: ``Config()``,
            if the family has such a class.
        link: What turns raw outputs into the predictions that ``pointwise`` gets.
        class_reduction: How the values of a row are combined. None: as the config says; the mean,
            if it says nothing.
        ignore_index: Rows with this class index do not count.

    Raises:
        MetalossError: If the family is not defined for the link.

    Attributes:
        links: The links that the family is defined for, and a hint for the error at others.
        family: The registered name, if the loss was made by name. An export stores it.
        loaded: Whether φ was loaded from a file.
        given: Whether the config determines the initial φ, so that no start replaces it.
        classes: C, if the loss is made for one number of classes; 0: for any.
        sees: The fields of `metaloss.types.Row` that :meth:`per_row` uses.
        recalls: The decay β of ``Row.average``, if the loss sees it.

    Example:
        >>> class Squared(LearnedLoss):
        ...     def pointwise(self, prediction, target):
        ...         return (prediction - target) ** 2
        >>> criterion = Squared(link="identity")
        >>> criterion(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)).item()
        5.0
    """

    Config: type | None = None
    links: tuple[Link, ...] = tuple(Link)
    links_hint: str = ""
    family: str | None = None
    loaded: bool = False
    given: bool = False
    classes: int = 0
    sees: frozenset[str] = frozenset()
    recalls: float = 0.0

    def __init__(
        self,
        config: Any = None,
        *,
        link: Link | str = Link.softmax,
        class_reduction: ClassReduction | None = None,
        ignore_index: int = IGNORED,
    ) -> None:
        super().__init__()
        self.config = self.Config() if config is None and self.Config else config
        self.link = _as_link(link)
        said = getattr(self.config, "class_reduction", ClassReduction.mean)
        self.class_reduction: ClassReduction = class_reduction or said
        check_index("ignore_index", ignore_index)
        self.ignore_index = ignore_index
        if self.link not in self.links:
            names = " or ".join(link.name for link in self.links)
            raise MetalossError(
                f"{type(self).__name__} with link={self.link.name}: expected link={names}"
                f"{self.links_hint}"
            )

    def pointwise(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return ℓ_φ(prediction, target) element by element.

        Args:
            prediction: (B, C, *) after the link: probabilities, or values in regression.
            target: (B, C, *): one-hot or soft targets, or values in regression.

        Returns:
            (B, C, *), one value for each output.
        """
        raise TypeError(f"{type(self).__name__} must define pointwise(), per_output() or per_row()")

    def per_output(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss (B, C, *) of each raw output; both arguments are (B, C, *).

        If the family defines :meth:`per_row` alone: the loss of each row, at its target if it has
        classes. Plots show this value.
        """
        if not self.of_rows:
            return self.pointwise(apply_link(logits, self.link), target)
        found = self.per_row(logits, target, completed(None, logits, self.link))
        values = (found.values if isinstance(found, Weighed) else found).unsqueeze(1)
        return target * values if self.link is Link.softmax else values.expand_as(target)

    @property
    def of_rows(self) -> bool:
        """Whether the family defines :meth:`per_row` alone, so that only rows have a loss."""
        one, base = type(self), LearnedLoss
        return one.pointwise is base.pointwise and one.per_row is not base.per_row

    def per_row(self, logits: Tensor, target: Tensor, row: Row) -> Tensor | Weighed:
        """Return the loss (B, *) of each row, or the losses and the weights of the rows.

        Args:
            logits: (B, C, *) raw outputs.
            target: (B, C, *): one-hot or soft targets, or values in regression.
            row: What is known of the rows; only what the loss `sees` may be used. All of it is
                constant: it has no graph.
        """
        values = self.per_output(logits, target)
        return values.mean(1) if self.class_reduction is ClassReduction.mean else values.sum(1)

    def adjusted(self, logits: Tensor) -> Tensor:
        """Return the raw outputs (B, C, *) unchanged.

        A family overrides this to shift them before the link.
        """
        return logits

    def forward(
        self,
        prediction: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        row: Row | None = None,
    ) -> Tensor:
        """Return the scalar loss of a batch.

        It is computed in double precision if φ or the raw outputs are, otherwise in single
        precision. Half precision is converted first, under autocast as well.

        On the CPU, targets out of range raise an error: class indices that are neither a class nor
        ``ignore_index``, and soft targets that are negative or NaN. On a GPU, in compiled programs
        and under ``vmap``, such targets make the loss and all of its derivatives NaN instead.

        Args:
            prediction: (B, C, *) raw outputs of the model, before the link; (B,) means C = 1.
            target: With the softmax link, (B, *) class indices or (B, C, *) probabilities. With
                the other links, the shape of ``prediction``; with sigmoid, from 0 to 1.
            weight: (B,) weights of the rows, ≥ 0, for a weighted mean.
            row: What is known of the rows, for a loss that `sees` it. What is missing has the value
                of a row that was never visited, at the beginning of training.

        Returns:
            A scalar, the (weighted) mean over rows; 0 if no row counts.

        Raises:
            MetalossError: If shapes or types do not fit each other or the link, or if a target is
                out of range.
        """
        check_outputs(prediction)
        check_target(target)
        if prediction.dim() == 1:
            prediction = prediction.unsqueeze(1)
            if self.link is not Link.softmax and target.dim() == 1:
                target = target.unsqueeze(1)
        dtype, fits = computing_type(prediction, self)
        with without_autocast(prediction.device), nullcontext() if fits else in_type(dtype, self):
            return self._value(prediction.to(dtype), target, weight, row)

    def _value(
        self, prediction: Tensor, target: Tensor, weight: Tensor | None, row: Row | None
    ) -> Tensor:
        logits = self.adjusted(prediction)
        encoded, counted = encode(logits, target, self.link, self.ignore_index)
        wrong = None
        if readable(target):
            refuse_out_of_range(logits, target, self.link, self.ignore_index)
        else:
            wrong = out_of_range(logits, target, self.link, self.ignore_index)
        row = completed(row, prediction, self.link, self.sees) if self.sees else Row()
        rows, own = self.per_row(logits, encoded, row), None
        if isinstance(rows, Weighed):
            rows, own = rows
        if wrong is not None:
            # As a factor, so that the derivatives become NaN as well.
            rows = rows * torch.where(wrong, float("nan"), torch.ones_like(rows))
        if weight is not None:
            if not isinstance(weight, Tensor):
                raise MetalossError(f"weight is a {type(weight).__name__}: expected a tensor (B,)")
            if weight.shape != prediction.shape[:1]:
                raise MetalossError(
                    f"weight has shape {tuple(weight.shape)}, expected one weight a row: "
                    f"({prediction.shape[0]},)"
                )
            spread = weight.reshape(-1, *[1] * (rows.dim() - 1)).to(rows.dtype)
            spread = spread.expand_as(rows)
            counted = spread if counted is None else counted.to(rows.dtype) * spread
        if own is not None:
            counted = own if counted is None else counted.to(rows.dtype) * own
        if counted is None:
            return rows.mean() if rows.numel() else rows.sum()
        counted = counted.to(rows.dtype)
        total = counted.sum()
        # If no row counts, the loss and its gradient are 0.
        return (rows * counted).sum() / torch.where(total > 0, total, torch.ones_like(total))

    def latex(self) -> str | None:
        """Return the current ℓ(t, p) in LaTeX; None for a family without a formula."""
        return None

    def python(self) -> str | None:
        """Return the source of ``criterion(outputs, target)``; None without a formula."""
        return None

    def extra_repr(self) -> str:
        """Return what is printed: link, reduction, and an ``ignore_index`` that was set."""
        text = f"link={self.link.name}, class_reduction={self.class_reduction.name}"
        return text if self.ignore_index == IGNORED else f"{text}, ignore_index={self.ignore_index}"


def phi_of(loss: nn.Module) -> Tensors:
    """Return φ: detached copies of the loss's parameters, by their names."""
    return {name: value.detach().clone() for name, value in loss.named_parameters()}


def apply_link(logits: Tensor, link: Link) -> Tensor:
    """Return the predictions (B, C, *) for raw outputs (B, C, *)."""
    if link is Link.softmax:
        return logits.softmax(1)
    return logits.sigmoid() if link is Link.sigmoid else logits


def expect_classes(loss: LearnedLoss, logits: Tensor) -> None:
    """Raise unless raw outputs (B, C, *) have as many classes as the loss is made for."""
    if loss.classes and logits.shape[1] != loss.classes:
        raise MetalossError(
            f"{type(loss).__name__} is made for {loss.classes} classes: got raw outputs of shape "
            f"{tuple(logits.shape)}"
        )


def _as_link(link: Link | str) -> Link:
    if isinstance(link, Link):
        return link
    if link not in Link.__members__:
        raise unknown_name("link", link, Link.__members__)
    return Link[link]
