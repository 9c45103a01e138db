"""The loss as a small network on (target, prediction): that of AdaLFL or of ML³."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaloss.contracts import Task, TaskDependent
from metaloss.errors import MetalossError, check_range, unknown_name
from metaloss.losses.base import IGNORED, ClassReduction, LearnedLoss, apply_link
from metaloss.losses.criterion_text import criterion_text
from metaloss.losses.mlp_text import network_text
from metaloss.losses.rows import completed, mean_prediction, rank, spread, usual_loss
from metaloss.losses.smooth_leaky_relu import smooth_leaky_relu
from metaloss.types import Link, Row

# Raw outputs are shifted by this times the parameter. So a shift of log 50, for a class that is
# fifty times rarer, is learned at the same rate as the network's weights.
OFFSET_UNIT = 4.0
TASKS_CLASSES = -1
# The first two inputs of the network, and what may follow: the fields of `Row` that each uses.
_INPUTS = ["target", "prediction"]
_MORE = {
    "memory": {"memory"},
    "average": {"average", "visits"},
    "progress": {"progress"},
    "rank": {"outputs"},
}


class Activation(Enum):
    """Activations of the hidden layers.

    Attributes:
        smooth_leaky_relu: The smooth leaky ReLU of AdaLFL, with ``gamma`` and ``beta``.
        relu: max(x, 0), as in ML³.
        tanh: The hyperbolic tangent.
        silu: x times the logistic function of x.
    """

    smooth_leaky_relu = "smooth_leaky_relu"
    relu = "relu"
    tanh = "tanh"
    silu = "silu"


class Output(Enum):
    """What follows the last layer.

    Attributes:
        linear: Nothing.
        softplus: log(1 + exp(x)), which keeps the loss positive.
    """

    linear = "linear"
    softplus = "softplus"


_SMOOTH = (
    lambda own: own.activation is Activation.smooth_leaky_relu,
    "loss.activation=smooth_leaky_relu",
)


@dataclass(frozen=True, kw_only=True)
class MLPLossConfig(TaskDependent):
    """Options of the ``mlp`` loss."""

    hidden: list[int] = field(
        default_factory=lambda: [40, 40], metadata={"help": "widths of the hidden layers"}
    )
    activation: Activation = field(
        default=Activation.smooth_leaky_relu, metadata={"help": "of the hidden layers"}
    )
    output: Output = field(
        default=Output.linear, metadata={"help": "softplus keeps the loss positive (ML³)"}
    )
    bias: bool = field(default=True, metadata={"help": "biases in the layers (ML³ has none)"})
    gamma: float = field(
        default=0.01, metadata={"help": "slope of the smooth leaky ReLU at −∞", "needs": _SMOOTH}
    )
    beta: float = field(
        default=10.0, metadata={"help": "sharpness of the smooth leaky ReLU", "needs": _SMOOTH}
    )
    class_reduction: ClassReduction = field(
        default=ClassReduction.mean, metadata={"help": "how the values of a row are combined"}
    )
    class_offsets: int = field(
        default=TASKS_CLASSES,
        metadata={"help": "classes with a learned shift of their output; -1: the task's, 0: none"},
    )

    inputs: list[str] = field(
        default_factory=lambda: list(_INPUTS),
        metadata={"help": f"of the network: target, prediction; and {', '.join(_MORE)}"},
    )
    decay: float = field(
        default=0.9,
        metadata={
            "help": "of the moving average of a row's predictions, in [0, 1), for average",
            "needs": (lambda own: "average" in own.inputs, "average among loss.inputs"),
        },
    )

    def __post_init__(self) -> None:
        known = [*_INPUTS, *_MORE]
        if odd := [name for name in self.inputs if name not in known]:
            raise unknown_name("loss.inputs", odd[0], known)
        if self.inputs[:2] != _INPUTS or len(set(self.inputs)) < len(self.inputs):
            raise MetalossError(
                f"loss.inputs={self.inputs}: expected target and prediction, then any of "
                f"{', '.join(_MORE)}, each once"
            )
        check_range("loss.decay", self.decay, 0 <= self.decay < 1, "a number in [0, 1)")
        if not self.hidden or any(width < 1 for width in self.hidden):
            raise MetalossError(f"loss.hidden={self.hidden}: expected one or more widths ≥ 1")
        check_range("loss.beta", self.beta, self.beta > 0, "a positive number")
        check_range("loss.gamma", self.gamma, 0 <= self.gamma <= 1, "a number from 0 to 1")
        if self.class_offsets < TASKS_CLASSES:
            raise MetalossError(
                f"loss.class_offsets={self.class_offsets}: expected the number of classes, 0 for "
                "none, or -1 for the number of the task's classes"
            )

    def for_task(self, task: Task) -> Self:
        """Return the options with the task's number of classes, 0 in regression."""
        if self.class_offsets != TASKS_CLASSES:
            return self
        return replace(self, class_offsets=0 if task.link is Link.identity else task.outputs)


class MLPLoss(LearnedLoss):
    r"""A multilayer perceptron applied to every output: ``ℓ_φ(t, p)``.

    The smooth leaky ReLU is ``(1/β) log(exp(βx) + 1) (1 − γ) + γ x``. It does not become flat, as
    ML³'s ReLU with a softplus output does.

    ``class_offsets=C`` adds C parameters o to φ, which shift the raw outputs z before the link:
    ``ℓ_φ(t, link(z + 4 o))``. The network alone treats all classes alike; with offsets, the loss
    can learn a wider margin for rare classes. They begin at 0. ``pointwise`` does not include them.
    In a run, -1 is the number of the task's classes; in Python it means 0.

    ``inputs`` may have more of each row: the *average* of its earlier predictions for the same
    output; and, the same at all of its outputs, its *memory* (how well its label was predicted at
    earlier visits, and how often the guess was wrong; see `metaloss.types.Row`), the *progress* of
    training, and the *rank* of its cross-entropy (in regression, of its squared error) within the
    batch, from 0 to 1. All of these are constants: no gradient flows through them. Average, memory
    and progress need a run; elsewhere they are those of a row never visited, at the beginning,
    unless ``row`` is passed.

    Raises:
        MetalossError: If an option is out of range.

    Reference:
        Raymond, Chen, Xue & Zhang, "Meta-Learning Adaptive Loss Functions", TMLR 2025, section 3
        (the network and the activation; γ and β from memory). With ``activation=relu
        output=softplus bias=false hidden=[50,50]``: Bechtle et al., "Meta Learning via Learned
        Loss", ICPR 2021. Offsets that are fixed, by the classes' shares: Menon et al., "Long-Tail
        Learning via Logit Adjustment", ICLR 2021.

    Example:
        >>> loss = MLPLoss()
        >>> sum(p.numel() for p in loss.parameters())
        1800
        >>> loss(torch.zeros(8, 10), torch.arange(8)).shape
        torch.Size([])
    """

    Config = MLPLossConfig

    def __init__(
        self,
        config: MLPLossConfig | None = None,
        *,
        link: Link | str = Link.softmax,
        ignore_index: int = IGNORED,
    ) -> None:
        config = config or MLPLossConfig()
        if config.class_offsets == TASKS_CLASSES:  # no task is known here
            config = replace(config, class_offsets=0)
        super().__init__(config, link=link, ignore_index=ignore_index)
        self.more = config.inputs[len(_INPUTS) :]
        self.sees = frozenset[str]().union(*(_MORE[name] for name in self.more))
        self.recalls = config.decay if "average" in self.more else 0.0
        widths = [len(config.inputs) + ("memory" in self.more), *config.hidden, 1]
        self.layers = nn.ModuleList(nn.Linear(i, o, bias=config.bias) for i, o in pairwise(widths))
        if config.output is Output.linear:
            # It would add a constant to the loss, which has no effect on any gradient.
            self.layers[-1].register_parameter("bias", None)
        self.activation = _activation(config)
        if config.class_offsets:
            self.offsets = nn.Parameter(torch.zeros(config.class_offsets))

    def adjusted(self, logits: Tensor) -> Tensor:
        """Return the raw outputs (B, C, *) plus the offsets, if there are any."""
        count = self.config.class_offsets
        if not count:
            return logits
        if logits.shape[1] != count:
            raise MetalossError(
                f"loss.class_offsets={count}: expected {logits.shape[1]}, for raw outputs of shape "
                f"{tuple(logits.shape)}; a loss with class_offsets=0 fits any number of classes"
            )
        return logits + OFFSET_UNIT * self.offsets.view(-1, *[1] * (logits.dim() - 2))

    def pointwise(self, prediction: Tensor, target: Tensor, row: Row | None = None) -> Tensor:
        """Return ℓ_φ(prediction, target); all shapes (B, C, *). ``row``: what is known of rows."""
        if not self.more:
            return self._values(prediction, target, [])
        # Without the other rows of a batch, a row is in the middle of them.
        unseen = completed(row, prediction, self.link, self.sees)
        middle = torch.full_like(prediction[:, 0], 0.5)
        return self._values(prediction, target, self._features(unseen, middle, middle))

    def per_row(self, logits: Tensor, target: Tensor, row: Row) -> Tensor:
        """Return the loss (B, *) of each row; see the base class."""
        if not self.more:
            values = self.per_output(logits, target)
        else:
            assert row.outputs is not None
            places = torch.zeros_like(logits[:, 0])
            if "rank" in self.more:
                places = spread(rank(usual_loss(row.outputs, target, self.link)), places)
            features = self._features(row, places, logits[:, 0])
            values = self._values(apply_link(logits, self.link), target, features)
        return values.mean(1) if self.class_reduction is ClassReduction.mean else values.sum(1)

    def _features(self, row: Row, places: Tensor, like: Tensor) -> list[Tensor]:
        """Return the further inputs of the network, (B, *) like ``like``."""
        found: list[Tensor] = []
        for name in self.more:
            if name == "rank":
                found.append(places)
            elif name == "average":
                mean = mean_prediction(row, self.recalls, self.link)
                found.append(mean.view(*mean.shape, *[1] * (like.dim() - 1)))
            else:
                known = getattr(row, name)
                columns = known.unbind(1) if name == "memory" else [known]
                found += [spread(value, like) for value in columns]
        return found

    def _values(self, prediction: Tensor, target: Tensor, more: list[Tensor]) -> Tensor:
        # What has no dimension of outputs is the same at all of them.
        wide = [v if v.dim() == prediction.dim() else v.unsqueeze(1) for v in more]
        hidden = torch.stack((target, prediction, *(v.expand_as(prediction) for v in wide)), dim=-1)
        *first, last = self.layers
        for layer in first:
            hidden = self.activation(layer(hidden))
        values = last(hidden).squeeze(-1)
        return F.softplus(values) if self.config.output is Output.softplus else values

    def python(self) -> str | None:
        """Return the source of ``criterion(outputs, target)``; None with further inputs."""
        if self.more:
            return None
        shift = OFFSET_UNIT * self.offsets.detach() if self.config.class_offsets else None
        config = self.config
        network = network_text(
            self.layers,
            config.activation.value,
            config.output.value,
            beta=config.beta,
            gamma=config.gamma,
        )
        return criterion_text(self, "network(t, p)", helpers=network, shift=shift)


def _activation(config: MLPLossConfig) -> Callable[[Tensor], Tensor]:
    functions: dict[Activation, Callable[[Tensor], Tensor]] = {
        Activation.smooth_leaky_relu: partial(
            smooth_leaky_relu, beta=config.beta, gamma=config.gamma
        ),
        Activation.relu: F.relu,
        Activation.tanh: torch.tanh,
        Activation.silu: F.silu,
    }
    return functions[config.activation]
