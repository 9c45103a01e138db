"""The targets, the task loss and the metric that belong to a link."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from metaloss.contracts import Task
from metaloss.data.checks import finite
from metaloss.data.targets.metrics import IGNORED, binary_error, error_rate, mse
from metaloss.errors import MetalossError
from metaloss.types import Link

# The most consecutive class indices without rows, if C is inferred from the largest index.
_WIDEST_GAP = 20

TensorFunction = Callable[[Tensor, Tensor], Tensor]


class Kind(ABC):
    """A kind of task: classes, yes/no questions or values."""

    link: ClassVar[Link]
    metric_name: ClassVar[str]
    weights: tuple[float, ...] | None = None

    @property
    @abstractmethod
    def task_loss(self) -> TensorFunction:
        """``(raw outputs, targets) -> scalar``."""

    @property
    @abstractmethod
    def metric(self) -> TensorFunction:
        """``(raw outputs, targets) -> scalar``; lower is better."""

    @abstractmethod
    def prepare(self, part: str, targets: Tensor) -> Tensor:
        """Return the targets in the type and shape that the task loss needs."""

    @abstractmethod
    def outputs(self, targets: Tensor) -> int:
        """Return C, inferred from the prepared training targets."""

    @abstractmethod
    def check(self, part: str, targets: Tensor, outputs: int) -> None:
        """Raise unless the prepared targets fit a model with C = ``outputs``."""

    @abstractmethod
    def constant_loss(self, targets: Tensor, outputs: int) -> float:
        """Return the task loss of the best constant prediction."""


@dataclass(frozen=True, kw_only=True)
class Classes(Kind):
    """One class of C: softmax, cross-entropy, error rate. Targets are indices or soft labels.

    Attributes:
        label_smoothing: The share of every target that is spread over all classes in the task loss.
        ignore_index: The class index of targets that do not count.
        weights: C weights of the rows of each class; None: equal.
    """

    label_smoothing: float = 0.0
    ignore_index: int = IGNORED
    weights: tuple[float, ...] | None = None

    link = Link.softmax
    metric_name = "error"

    @property
    def task_loss(self) -> TensorFunction:
        """Cross-entropy, perhaps with smoothed labels or an ignored class."""
        options: dict = {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}
        options |= {} if self.ignore_index == IGNORED else {"ignore_index": self.ignore_index}
        return partial(F.cross_entropy, **options) if options else F.cross_entropy

    @property
    def metric(self) -> TensorFunction:
        """The share of wrong classes."""
        return (
            error_rate
            if self.ignore_index == IGNORED
            else partial(error_rate, ignore_index=self.ignore_index)
        )

    def prepare(self, part: str, targets: Tensor) -> Tensor:
        """Return int64 indices (B, *) or soft labels (B, C, *)."""
        if not targets.is_floating_point():
            return targets.to(torch.int64)
        if targets.ndim < 2:
            raise MetalossError(
                f"{part}: real targets of shape {tuple(targets.shape)} with link=softmax; expected "
                "class indices (integers) or soft labels (B, C)"
            )
        return finite(part, "targets", targets)

    def outputs(self, targets: Tensor) -> int:
        """Return the largest class index plus one, or the number of soft labels.

        Raises:
            MetalossError: If the class indices do not look like 0 to C − 1.
        """
        if targets.is_floating_point():
            return targets.shape[1]
        classes = self._counted(targets).unique()
        if len(classes) < 2:
            raise MetalossError(
                "train: all targets are one class; expected two or more, or the option outputs=C"
            )
        least, largest = int(classes[0]), int(classes[-1])
        # A class may have no rows; wide gaps mean identifiers, or a mark such as 255.
        wide = int(classes.diff().max()) > max(_WIDEST_GAP, len(classes))
        if least > 0 or wide:
            hint = f"or ignore_index={largest} if that is not a class" if wide else "subtract 1"
            raise MetalossError(
                f"train: {len(classes)} classes from {least} to {largest}; expected 0 to C − 1 "
                f"({hint}; outputs=C in the options if some classes have no rows)"
            )
        return largest + 1

    def check(self, part: str, targets: Tensor, outputs: int) -> None:
        """Raise for a class out of range, or for soft labels that are not a distribution."""
        if targets.is_floating_point():
            _second_dimension(part, targets, outputs)
            off = (targets.sum(dim=1) - 1).abs() > 1e-3
            if bool((targets < 0).any() | off.any()):
                raise MetalossError(
                    f"{part}: soft labels are not a distribution; expected numbers ≥ 0 that sum "
                    "to 1 over the classes"
                )
            return
        self.check_classes(part, targets, outputs)

    def check_classes(self, part: str, targets: Tensor, outputs: int) -> None:
        """Raise for class indices that are neither from 0 to C − 1 nor ignored."""
        counted = self._counted(targets)
        if len(counted) == 0:
            raise MetalossError(
                f"{part}: every target is {self.ignore_index} (ignored); expected classes"
            )
        for extreme in (int(counted.min()), int(counted.max())):
            if not 0 <= extreme < outputs:
                raise MetalossError(
                    f"{part}: class {extreme}; expected 0 to {outputs - 1} (outputs={outputs}), "
                    f"or ignore_index={self.ignore_index} for targets to ignore"
                )

    def _counted(self, targets: Tensor) -> Tensor:
        return targets[targets != self.ignore_index]

    def constant_loss(self, targets: Tensor, outputs: int) -> float:
        """Return the entropy of the class frequencies in nats, with label smoothing.

        Example:
            >>> round(Classes().constant_loss(torch.tensor([0, 0, 1, 1]), 2), 4)
            0.6931
        """
        if targets.is_floating_point():
            shares = targets.double().transpose(0, 1).flatten(1).mean(dim=1)
        else:
            counts = torch.bincount(self._counted(targets), minlength=outputs).double()
            if self.weights is not None:
                counts = counts * torch.tensor(self.weights, dtype=torch.float64)
            shares = counts / counts.sum()
        shares = (1 - self.label_smoothing) * shares + self.label_smoothing / outputs
        return torch.special.entr(shares).sum().item()


class _Columns(Kind):
    """Real targets, one column for each of C outputs."""

    def prepare(self, part: str, targets: Tensor) -> Tensor:
        """Return real targets (B, C, *)."""
        found = finite(part, "targets", targets)
        # Outputs (B, C) and targets (B,) would broadcast to (B, B).
        return found[:, None] if found.ndim == 1 else found

    def outputs(self, targets: Tensor) -> int:
        """Return the number of columns."""
        return targets.shape[1]

    def check(self, part: str, targets: Tensor, outputs: int) -> None:
        """Raise for a wrong number of outputs."""
        _second_dimension(part, targets, outputs)


class YesNo(_Columns):
    """C independent yes/no questions: sigmoid, binary cross-entropy, share of wrong answers."""

    link = Link.sigmoid
    metric_name = "error"

    task_loss = staticmethod(F.binary_cross_entropy_with_logits)
    metric = staticmethod(binary_error)

    def check(self, part: str, targets: Tensor, outputs: int) -> None:
        """Raise for a target outside of [0, 1], or for a wrong number of outputs."""
        super().check(part, targets, outputs)
        if bool(((targets < 0) | (targets > 1)).any()):
            raise MetalossError(
                f"{part}: targets from {targets.min().item():g} to {targets.max().item():g} with "
                "link=sigmoid; expected 0 to 1"
            )

    def constant_loss(self, targets: Tensor, outputs: int) -> float:
        """Return the mean entropy of the answers in nats, with a constant for each column."""
        yes = targets.double().transpose(0, 1).flatten(1).mean(dim=1)
        return (torch.special.entr(yes) + torch.special.entr(1 - yes)).mean().item()


class Values(_Columns):
    """C real numbers: identity link, mean squared error."""

    link = Link.identity
    metric_name = "mse"

    task_loss = staticmethod(F.mse_loss)
    metric = staticmethod(mse)

    def constant_loss(self, targets: Tensor, outputs: int) -> float:
        """Return the variance of the targets, averaged over the columns."""
        values = targets.double().transpose(0, 1).flatten(1)
        return values.var(dim=1, correction=0).mean().item()


def kind_of(targets: Tensor, link: Link | None, ignore_index: int = IGNORED) -> Kind:
    """Return the kind for a link; without a link, it is inferred from the targets.

    Raises:
        MetalossError: If ``ignore_index`` is set but targets are not class indices.

    Example:
        >>> kind_of(torch.tensor([0, 1]), None).metric_name
        'error'
    """
    if link is None:
        link = Link.identity if targets.is_floating_point() else Link.softmax
    if link is Link.softmax and not targets.is_floating_point():
        return Classes(ignore_index=ignore_index)
    if ignore_index != IGNORED:
        raise MetalossError(
            f"ignore_index={ignore_index}: the targets are {targets.dtype} with link={link.value}; "
            "expected class indices (integers with link=softmax)"
        )
    return {Link.softmax: Classes(), Link.sigmoid: YesNo(), Link.identity: Values()}[link]


def check_task(task: Task) -> None:
    """Check the class indices of a task.

    Raises:
        MetalossError: If one is neither from 0 to C − 1 nor ignored.
    """
    for part in ("train", "valid", "test"):
        targets = getattr(task, part).targets
        if task.link is Link.softmax and not targets.is_floating_point():
            Classes(ignore_index=task.ignore_index).check_classes(part, targets, task.outputs)


def _second_dimension(part: str, targets: Tensor, outputs: int) -> None:
    if targets.shape[1] != outputs:
        raise MetalossError(
            f"{part}: targets of shape {tuple(targets.shape)} with outputs={outputs}; expected "
            f"(B, {outputs}, ...)"
        )
