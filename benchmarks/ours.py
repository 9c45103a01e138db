"""The steps of a real run: the core's own, with batches, guard and everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from metaloss.compose import compose
from metaloss.contracts import Progress
from metaloss.core.batches.streams import BatchStream, in_one_launch
from metaloss.core.parts.setup import Setup, prepare
from metaloss.core.runs.stackable import check_stackable
from metaloss.core.steps.stacked import together
from metaloss.data.augment import CropFlipCutout
from metaloss.types import Batch

from .workloads import Workload

WORDS = ("tracker=[]", "start=random", "inner.lr=0.01", "steps=1000000")


class Steps:
    """A run that goes on for as long as it is called: one call is one plan of its schedule."""

    def __init__(self, setups: Sequence[Setup]) -> None:
        self.setups = list(setups)
        self.progress = Progress()
        states = [setup.state(setup.advance.fresh("train", 0), phi_of(setup)) for setup in setups]
        if len(setups) > 1:
            check_stackable(setups)
        self.advance = together([setup.advance for setup in setups])
        self.state = self.advance.joined(states)

    @property
    def compile_seconds(self) -> float:
        """Seconds that compiling took so far."""
        return self.advance.compile_seconds

    def __call__(self) -> object:
        setup = self.setups[0]
        plan = setup.schedule.plan(self.progress, setup.config.steps)
        assert plan is not None
        self.state = self.advance(self.state, plan, self.progress)
        self.progress = replace(self.progress, train=self.progress.train + plan.unroll)
        return self.state


def steps(work: Workload, *words: str) -> Steps:
    """Return the steps of a run on a workload."""
    config = compose([*WORDS, *work.words, "loss=mlp", *words])
    return Steps([prepare(config, task=work.task(), model=work.build())])


def digits(seeds: Sequence[int], *words: str) -> Steps:
    """Return the steps of many seeds of the digits MLP, together where there are more than one."""
    setups = [prepare(compose([*WORDS, "task=digits", f"seed={s}", *words])) for s in seeds]
    return Steps(setups)


def phi_of(setup: Setup) -> dict[str, torch.Tensor]:
    """Return the loss's parameters as it was built."""
    return {name: value.detach().clone() for name, value in setup.loss.named_parameters()}


def pictures(
    device: torch.device, rows: int, batch: int, batches: int, *, compiled: bool = False
) -> Callable[[], object]:
    """Return a call that draws some batches out of resident pictures, cropped and flipped."""
    inputs = torch.randn(rows, 3, 32, 32, device=device)
    labels = torch.zeros(rows, dtype=torch.int64, device=device)
    crops = CropFlipCutout(padding=4, flip=True)
    augment = in_one_launch(crops) if compiled else crops
    stream = BatchStream(
        Batch(inputs, labels), size=batch, seed=0, purpose="train", augment=augment
    )
    return lambda: [stream[number] for number in range(batches)]
