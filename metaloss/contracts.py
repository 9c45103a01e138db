"""The interfaces of the exchangeable parts. A part imports this file, never another part.

Except for losses and models (``nn.Module``) and trackers, every part is a frozen, keyword-only
dataclass: its fields are its options, in the config file and in Python alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from metaloss.types import Batch, InnerState, Link, MetaGradient, Tensors, Window

if TYPE_CHECKING:
    from metaloss.inner.problem import InnerProblem
    from metaloss.losses.base import LearnedLoss

# ------------------------------------------------------------------------------------------ tasks


@dataclass(frozen=True, kw_only=True)
class Task:
    """Data splits, a task loss, a metric, and the link.

    Attributes:
        name: Shown in tables; part of a run's default folder name.
        train: All training rows, the possibly wrong labels included.
        valid: Validation rows, disjoint from ``train``: the meta-batches come from here.
        test: Test rows: only ever evaluated.
        link: What turns the model's raw outputs into predictions.
        outputs: C, the number of outputs that a model for this task must have.
        task_loss: ``(raw outputs (B, C, *), targets) -> scalar``; what φ is judged by.
        metric_name: For example ``"error"`` or ``"mse"``.
        metric: ``(raw outputs, targets) -> scalar``, a mean over rows.
        goal: ``"min"`` or ``"max"``: which metric values are better.
        constant_loss: Task loss of the best constant prediction on the training targets; a model
            above it has learned nothing.
        description: One line for people.
        augment: ``(inputs (B, ...), key) -> inputs (B, ...)``, applied to batches of training
            rows, never to validation or test rows that are evaluated or that judge. Pure: a
            function of the inputs and of the key, a 0-d int64 tensor on their device, alone.
        ignore_index: The class index of targets that do not count, in the task loss, the metric
            and the learned loss.
        stream: Keep the inputs in the CPU's memory and move them batch by batch. None: where
            they would take more than half of the device's free memory.
    """

    name: str
    train: Batch
    valid: Batch
    test: Batch
    link: Link
    outputs: int
    task_loss: Callable[[Tensor, Tensor], Tensor]
    metric_name: str
    metric: Callable[[Tensor, Tensor], Tensor]
    goal: str = "min"
    constant_loss: float
    description: str = ""
    augment: Callable[[Tensor, Tensor], Tensor] | None = None
    stream: bool | None = None
    ignore_index: int = -100

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row of the inputs, without the batch dimension."""
        return tuple(self.train.inputs.shape[1:])


class TaskSource(ABC):
    """Where a task's rows come from, such as ``digits``, ``cifar10`` or ``csv``."""

    @abstractmethod
    def build(self, seed: int) -> Task:
        """Load and split the rows, on the CPU; the same seed gives the same task."""


class TaskOptions(ABC):
    """Options of a loss that take from the task what is not given, such as how many classes."""

    @abstractmethod
    def for_task(self, task: Task) -> Self:
        """Return the options, complete; unchanged where everything was given."""


# ----------------------------------------------------------------------------- inner optimization


class InnerOptimizer(ABC):
    """How θ moves: a frozen description with a pure update, equal to ``torch.optim``'s."""

    @abstractmethod
    def init(self, params: Tensors) -> Any:
        """Return the state before the first step: a pytree of tensors."""

    @abstractmethod
    def update(self, grads: Tensors, state: Any, params: Tensors) -> tuple[Tensors, Any]:
        """Return the new parameters and state. Pure and differentiable in all its arguments."""


# ------------------------------------------------------------------------------------ meta-learning


class MetaOptimizer:
    """How φ moves: by a meta-gradient and an outer rule, or by a search without gradients."""


class GradientMetaOptimizer(MetaOptimizer, ABC):
    """An engine for the meta-gradient. The outer rule is shared: ``meta_optimizers/outer.py``."""

    exact: bool = True

    @abstractmethod
    def meta_gradient(
        self, problem: InnerProblem, phi: Tensors, state: InnerState, window: Window
    ) -> MetaGradient:
        """Take K inner steps from ``state`` and return d(task loss)/dφ at the state reached.

        Pure: no argument is changed, no global state is touched, all results are detached.

        Raises:
            UnsupportedError: If this engine cannot do it; the message names one that can.
        """


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come: finished offline meta-steps and finished training steps."""

    offline: int = 0
    train: int = 0

    def after(self, plan: Plan) -> Progress:
        """Return how far a run has come once a plan is done."""
        if plan.phase == "offline":
            return Progress(offline=self.offline + 1, train=self.train)
        return Progress(offline=self.offline, train=self.train + plan.unroll)

    def steps_in(self, phase: str) -> int:
        """Return the steps done in a phase, ``"offline"`` or ``"train"``."""
        return self.offline if phase == "offline" else self.train


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the trainer does next.

    Attributes:
        phase: ``"offline"`` or ``"train"``.
        reset: Begin with fresh θ, buffers and optimizer state.
        unroll: The number of inner steps to take.
        meta_step: Whether φ moves after them, from the gradient through exactly these steps.
    """

    phase: str
    reset: bool = False
    unroll: int = 1
    meta_step: bool = False


class MetaBatch(Enum):
    """Where the rows that judge φ come from; ``next``: the next training batch."""

    validation = "validation"
    train = "train"
    next = "next"


# The functional form, since one of the names in the config is no Python identifier.
TrainOn = Enum(
    "TrainOn",
    {"train": "train", "validation": "validation", "train+validation": "train+validation"},
)
TrainOn.__doc__ = "Which rows the training batches come from."


class Schedule(ABC):
    """When θ is reset, how long the unroll is, when φ moves. Decides only; sees no tensor.

    Attributes:
        meta_batch: Where the meta-batches come from.
        train_on: Which rows the training batches come from.
        early_stopping: Evaluations without a better validation metric after which training ends
            and the best weights are restored; 0 never.
    """

    meta_batch: MetaBatch = MetaBatch.validation
    train_on: TrainOn = TrainOn["train"]
    early_stopping: int = 0

    @abstractmethod
    def plan(self, progress: Progress, steps: int) -> Plan | None:
        """Return what comes next in a run of ``steps`` training steps, None at the end.

        A pure function of its arguments: a resumed run is planned like the uninterrupted one.
        """

    @property
    def begins(self) -> Progress:
        """Where the first plan begins."""
        return Progress()

    def plans(self, steps: int) -> Iterator[Plan]:
        """Yield all that comes in a run of ``steps`` training steps."""
        progress = self.begins
        while (plan := self.plan(progress, steps)) is not None:
            yield plan
            progress = progress.after(plan)

    @abstractmethod
    def offline_total(self) -> int:
        """Return the number of offline meta-steps before training."""

    @abstractmethod
    def moves_in(self, phase: str) -> bool:
        """Return whether φ moves in a phase, ``"offline"`` or ``"train"``."""

    @property
    def learns(self) -> bool:
        """Whether φ ever moves."""
        return self.moves_in("offline") or self.moves_in("train")


Report = Callable[[int, Mapping[str, float]], None]


class Start(ABC):
    """How φ begins.

    Attributes:
        total: The steps that ``report`` counts to.
        discards: Whether the parameters that the loss has are thrown away.
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
        """Return the first φ for ``loss`` on a task with C = ``outputs``, changing nothing.

        ``loss`` holds freshly drawn or loaded parameters; ``seed`` decides every draw; ``report``
        is told (step, numbers) now and then, out of ``total`` steps.
        """

    def begin_together(
        self,
        losses: Sequence[LearnedLoss],
        task_loss: Callable[[Tensor, Tensor], Tensor],
        outputs: int,
        seeds: Sequence[int],
        reports: Sequence[Report],
    ) -> list[Tensors]:
        """Return what :meth:`begin` returns for each of many losses that are alike in structure.

        A start with work to do may do it for all at once.
        """
        return [
            self.begin(loss, task_loss, outputs, seed, report)
            for loss, seed, report in zip(losses, seeds, reports, strict=True)
        ]


# ------------------------------------------------------------------------------------------ search


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A loss that a search proposes.

    Attributes:
        options: Options of the loss's family that differ from the run's: its structure.
        phi: Its parameters; None: those that the loss has as it is built.
        text: For people, such as the expression.
        rejected: Why it is not to be trained, None if it is.
        known: Its fitness, if the search has met it before.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    phi: Tensors | None = None
    text: str = ""
    rejected: str | None = None
    known: float | None = None


class Search(ABC):
    """A search that is under way, by turns of :meth:`ask` and :meth:`tell`.

    A function of the seed and of what it was told alone: a stopped search is gone on with by
    telling a new one the same again.
    """

    @abstractmethod
    def ask(self) -> list[Candidate]:
        """Return the next generation."""

    @abstractmethod
    def tell(self, fitness: list[float]) -> None:
        """Take the fitness of each candidate of the last generation: lower is better, or inf."""


class SearchMetaOptimizer(MetaOptimizer, ABC):
    """A search without gradients over φ, and over structures of the loss, before training."""

    @abstractmethod
    def search(
        self,
        loss: LearnedLoss,
        task_loss: Callable[[Tensor, Tensor], Tensor],
        outputs: int,
        seed: int,
    ) -> Search:
        """Return a new search.

        Args:
            loss: As the config describes it; not changed.
            task_loss: What φ is judged by.
            outputs: C, the number of the model's outputs.
            seed: Decides every draw.

        Raises:
            MetalossError: If the search cannot handle this family of losses.
        """


# ---------------------------------------------------------------------------------------- tracking


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """The first event. ``totals``: the number of steps of each phase, by phase name.

    ``group``: what runs that were started together have in common, None for a run alone.
    """

    config: Mapping[str, Any]
    folder: Path
    name: str
    totals: Mapping[str, int]
    goal: str
    resumed_from: int | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Logged:
    """Numbers of one logged step; ``step`` only ever grows, through all phases.

    ``numbers`` by name, such as ``train/loss``, ``train/task_loss``, ``meta/task_loss``,
    ``valid/error``, ``test/error``, ``rate/steps_per_second``.
    """

    step: int
    phase: str
    phase_step: int
    numbers: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class LossCurves:
    """The learned loss as people see it: ℓ(t, p) for each target value over a grid of p.

    ``grid`` (G,) predictions; ``curves`` maps a target's label such as ``"t=1"`` to (G,) values.
    """

    step: int
    phase: str
    grid: tuple[float, ...]
    curves: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under names, such as every candidate of a search; it grows, and is sent whole."""

    step: int
    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Noticed:
    """Something people should know: a guard event, a fallback, a warning."""

    step: int
    message: str
    level: str = "warning"


@dataclass(frozen=True, kw_only=True)
class RunFinished:
    """The last event. ``files``: what the run wrote, by role (``loss``, ``model``, ...)."""

    summary: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)


Event = RunStarted | Logged | LossCurves | Table | Noticed | RunFinished


class Tracker(ABC):
    """Listens to a run. May fail without hurting it: it is then disconnected, said once.

    Attributes:
        once: Of many runs trained together only the first is listened to: for what people watch.
    """

    once: bool = False

    @abstractmethod
    def handle(self, event: Event) -> None:
        """Take one event: plain numbers, small tuples, paths. Never a tensor."""

    def close(self) -> None:  # noqa: B027 - most trackers hold nothing to release
        """Release what is held; called once, also after a failure or Ctrl-C."""
