"""What rounding does to the meta-gradient: single precision and bfloat16 against double."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from metaloss.compose import compose
from metaloss.contracts import Plan, Progress, Task
from metaloss.core.parts.setup import Setup, prepare
from metaloss.core.steps.state import TrainState
from metaloss.data.images.digits import Digits
from metaloss.inner import FunctionalModel, InnerProblem
from metaloss.types import Batch, InnerState, Tensors, Window

from .ours import Steps
from .workloads import WORKLOADS, Workload

NETWORKS = {
    "digits MLP, batch 64": Workload(model="mlp", row=(1, 8, 8), outputs=10, batch=64),
    **{name: work for name, work in WORKLOADS.items() if work.model in ("lenet5", "resnet18")},
}
# By name: θ's and φ's type, and the type that the model's training forwards run in.
KINDS: dict[str, tuple[torch.dtype, torch.dtype | None]] = {
    "double": (torch.float64, None),
    "single": (torch.float32, None),
    "bf16": (torch.float32, torch.bfloat16),
}
ONE_STEP = Plan(phase="train", reset=False, unroll=1, meta_step=True)


def precision(network: str, steps: int, windows: int) -> dict[str, dict[str, float]]:
    """Return how far meta-gradients are from double precision's, before and after training.

    Of an online step with φ begun as an imitation of cross-entropy, on the digits (enlarged to the
    network's pictures); means over a few windows of one training batch and one that judges.
    """
    work = NETWORKS[network]
    sizes = (f"batch_size={work.batch}", f"meta_batch_size={work.batch}", f"steps={steps or 1}")
    words = ("tracker=[]", "schedule=online", "loss=mlp", "inner.lr=0.01", "compile=off")
    setup = prepare(compose([*words, *sizes]), task=_digits(work.row), model=work.build())
    phi = setup.start.begin(setup.loss, setup.task.task_loss, work.outputs, 0)
    run = Steps([setup])
    run.state = setup.state(run.state.inner, phi)
    found = {"at the start": _errors(setup, run.state, windows)}
    for _ in range(steps):
        run()
    return {**found, f"after {steps} steps": _errors(setup, run.state, windows)}


def _digits(row: tuple[int, ...]) -> Task:
    task = Digits().build(seed=0)

    def enlarged(rows: Batch) -> Batch:
        inputs = rows.inputs
        if row[-2:] != inputs.shape[-2:]:
            inputs = F.interpolate(inputs, row[-2:], mode="bilinear")
        return Batch(inputs.expand(-1, *row).contiguous(), rows.targets)

    return replace(
        task, train=enlarged(task.train), valid=enlarged(task.valid), test=enlarged(task.test)
    )


def _errors(setup: Setup, state: TrainState, windows: int) -> dict[str, float]:
    every: dict[str, list[Tensor]] = {name: [] for name in KINDS}
    for number in range(windows):
        window = setup.advance.window(ONE_STEP, Progress(train=number))
        for name, (dtype, autocast) in KINDS.items():
            every[name].append(_flat(_gradient(setup, state, window, dtype, autocast)))
    expected = every["double"]
    found = {}
    for name in ("single", "bf16"):
        pairs = list(zip(every[name], expected, strict=True))
        found[f"{name}, error"] = _mean([(a - b).norm() / b.norm() for a, b in pairs])
        found[f"{name}, cosine"] = _mean([_cosine(a, b) for a, b in pairs])
    # What another draw of the rows does to it, to compare with.
    turned = [*expected[1:], expected[0]]
    found["another window, cosine"] = _mean(
        [_cosine(a, b) for a, b in zip(expected, turned, strict=True)]
    )
    return found


def _gradient(
    setup: Setup,
    state: TrainState,
    window: Window,
    dtype: torch.dtype,
    autocast: torch.dtype | None,
) -> Tensors:
    problem = InnerProblem(
        model=FunctionalModel(copy.deepcopy(setup.model).to(dtype), autocast=autocast),
        loss=copy.deepcopy(setup.loss).to(dtype),
        task_loss=setup.task.task_loss,
        optimizer=setup.problem.optimizer,
    )

    def cast(tree: Any) -> Any:
        return pytree.tree_map_only(
            Tensor, lambda x: x.to(dtype) if x.is_floating_point() else x, tree
        )

    phi, inner, seen = cast((state.phi, state.inner, tuple(window)))
    assert isinstance(inner, InnerState)
    return setup.engine.meta_gradient(problem, phi, inner, Window(*seen)).gradient


def _flat(gradient: Tensors) -> Tensor:
    return torch.cat([value.flatten().double() for value in gradient.values()])


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(a, b, dim=0)


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean())
