"""What a kind of model is, and how one is written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor, nn

ENGINES = ("mixed", "torchopt", "higher", "finite_difference")
ROWS = 4
CLASSES = 3


class Truth(Enum):
    """What the numbers of a kind are held against."""

    unroll = "torch's own graph through the steps, and differences in φ"
    # Where backward is not the derivative of forward, differences of forward say nothing.
    graph = "torch's own graph through the steps"
    differences = "differences in φ of training by torch.optim"
    # Draws are not torch's: the losses that a Learner itself reports are differenced.
    own = "differences in φ of the learner's own losses"
    # Draws, and backward is not the derivative of forward.
    agreed = "torch's own graph through the learner's forward passes"


class Expected(Enum):
    """What the engines make of a kind."""

    exact = "exact"
    reverse = "exact; `mixed` by a second reverse pass"
    backward = "exact, of the derivative that `backward` states"
    forward = "exact under `mixed`; `torchopt` and `higher` refuse"
    differences = "`finite_difference` alone"
    refused = "refused"

    def words(self) -> dict[str, str]:
        """Return the outcome for each engine: right or refused."""
        right = {
            Expected.exact: ENGINES,
            Expected.reverse: ENGINES,
            Expected.backward: ENGINES,
            Expected.forward: ("mixed", "finite_difference"),
            Expected.differences: ("finite_difference",),
            Expected.refused: (),
        }[self]
        return {engine: "right" if engine in right else "refused" for engine in ENGINES}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A tiny model, its batch, and what is expected of it.

    Attributes:
        name: As a user would call it.
        make: Makes the model, in single precision or as it likes; it is seeded around the call.
        inputs: Draws the inputs of a batch.
        plain: Makes the same model without what plain torch cannot follow: checkpoints, which
            compute anew in the backward pass, after several steps from weights that are there no
            longer; sparse gradients, which torch's Adam does not take.
        targets: Shape of the class targets after the rows, such as (H, W).
        truth: What the numbers are held against.
        expected: With one inner step.
        expected_two: With two, where that differs.
        expected_adam: Where the weights move by Adam, if that differs.
        tolerance: How far exact engines may be off, relative; None: 1e-9.
        smooth: Whether differences of the model's numbers say anything: not where it computes in
            lower precision inside, or where BatchNorm over four single pixels makes cliffs.
        double: Whether the model is cast to double precision.
        heavy: Left to the long form.
        traces: Whether ``compile="trace"`` takes it; None: not asked.
        needs: The library that it comes from, if that is not torch or torchvision.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[torch.Generator], Tensor]
    plain: Callable[[], nn.Module] | None = None
    targets: tuple[int, ...] = ()
    truth: Truth = Truth.unroll
    expected: Expected = Expected.exact
    expected_two: Expected | None = None
    expected_adam: Expected | None = None
    tolerance: float | None = None
    smooth: bool = True
    double: bool = True
    heavy: bool = False
    traces: bool | None = True
    needs: str | None = None

    def model(self) -> nn.Module:
        """Return a fresh model, always the same."""
        return self._made(self.make)

    def plain_model(self) -> nn.Module:
        """Return the same model without what plain torch cannot follow."""
        return self._made(self.plain or self.make)

    def _made(self, make: Callable[[], nn.Module]) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = make()
            return model.double() if self.double else model

    def batches(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """Return (inputs, targets) pairs, always the same."""
        generator = torch.Generator().manual_seed(1)
        return [
            (
                self.inputs(generator),
                torch.randint(CLASSES, (ROWS, *self.targets), generator=generator),
            )
            for _ in range(count)
        ]

    @property
    def half(self) -> bool:
        """Whether its weights are in half precision."""
        return self.tolerance is not None and self.tolerance > 1e-3

    def expects(self, steps: int, optimizer: str = "sgd") -> Expected:
        """Return what is expected with this many inner steps."""
        if optimizer == "adam" and self.expected_adam is not None:
            return self.expected_adam
        return self.expected if steps == 1 else self.expected_two or self.expected


@dataclass(frozen=True)
class Group:
    """Kinds that belong together, in the order of the page."""

    title: str
    kinds: list[Kind] = field(default_factory=list)

    def add(self, name: str, make: Callable[[], nn.Module], inputs, **options) -> None:
        """Write a kind down."""
        self.kinds.append(Kind(name=name, make=make, inputs=inputs, **options))


class Net(nn.Module):
    """Parts by name, and what is done with them: ``run(self, inputs)``."""

    def __init__(self, run: Callable[[nn.Module, Tensor], Tensor], **parts) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        """Return ``run(self, x)``."""
        return self.run(self, x)


def real(*shape: int) -> Callable[[torch.Generator], Tensor]:
    """Inputs of normal numbers, (rows, *shape)."""
    return lambda generator: torch.randn(ROWS, *shape, dtype=torch.float64, generator=generator)


def tokens(count: int, *shape: int) -> Callable[[torch.Generator], Tensor]:
    """Inputs of whole numbers below ``count``, (rows, *shape)."""
    return lambda generator: torch.randint(count, (ROWS, *shape), generator=generator)


def head(width: int) -> nn.Linear:
    """Return the layer that ends a model."""
    return nn.Linear(width, CLASSES)


def between(*layers: nn.Module, inside: int = 6, outside: int | None = None) -> nn.Sequential:
    """Layers on (rows, inside) numbers, between a layer of four inputs and the outputs."""
    return nn.Sequential(nn.Linear(4, inside), *layers, nn.Linear(outside or inside, CLASSES))


def pooled(*layers: nn.Module, width: int) -> nn.Sequential:
    """Layers on images or signals, then the mean over places and the outputs."""
    return nn.Sequential(*layers, nn.Flatten(2), Mean(), nn.Linear(width, CLASSES))


class Mean(nn.Module):
    """The mean over the last dimension."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean."""
        return x.mean(-1)


def set_up(model: nn.Module, *changes: Callable[[nn.Module], object]) -> nn.Module:
    """Return the model after some changes to it."""
    for change in changes:
        change(model)
    return model
