"""What is trained: networks of the literature on random rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import metaloss
from metaloss import registry
from metaloss.contracts import Task


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A network and the shapes of what it is trained on."""

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    row: tuple[int, ...]
    outputs: int
    batch: int
    tokens: bool = False

    def build(self) -> nn.Module:
        """Return the network; the same weights every time."""
        part = registry.get("model", self.model)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            options = part.config_class(**self.options)
            return part.build(options, input_shape=self.row, outputs=self.outputs)

    def rows(self, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return random rows on the CPU."""
        draw = torch.Generator().manual_seed(seed)
        if self.tokens:
            shape = (count, *self.row)
            inputs = torch.randint(self.outputs, shape, generator=draw)
            return inputs, torch.randint(self.outputs, shape, generator=draw)
        inputs = torch.randn(count, *self.row, generator=draw)
        return inputs, torch.randint(self.outputs, (count,), generator=draw)

    def task(self) -> Task:
        """Return a task of four batches each."""
        parts = [self.rows(4 * self.batch, seed) for seed in range(3)]
        return metaloss.task_from_data(*parts, name=self.model)

    @property
    def task_loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """What the loss is judged by."""
        return F.cross_entropy


WORKLOADS = {
    "ResNet-18, width 16, 32×32, batch 64": Workload(
        model="resnet18", options={"width": 16}, row=(3, 32, 32), outputs=10, batch=64
    ),
    "LeNet-5, batch 128": Workload(model="lenet5", row=(1, 32, 32), outputs=10, batch=128),
    "MLP 3072-1000-10, batch 128": Workload(
        model="mlp", options={"hidden": [1000]}, row=(3072,), outputs=10, batch=128
    ),
    "transformer, 4 layers, d = 128, 128 tokens, batch 16": Workload(
        model="gpt", row=(128,), outputs=65, batch=16, tokens=True
    ),
}
