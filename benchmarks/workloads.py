"""What is trained: networks of the literature on random rows."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

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
    narrow: bool = False  # bf16 arithmetic, and pictures with channels last
    groups: int = 0  # GroupNorm with so many groups in the place of every BatchNorm

    def build(self) -> nn.Module:
        """Return the network; the same weights every time."""
        part = registry.get("model", self.model)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            options = part.config_class(**self.options)
            network = part.build(options, input_shape=self.row, outputs=self.outputs)
        return _grouped(network, self.groups) if self.groups else network

    def rows(self, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return random rows on the CPU."""
        draw = torch.Generator().manual_seed(seed)
        if self.tokens:
            shape = (count, *self.row)
            inputs = torch.randint(self.outputs, shape, generator=draw)
            return inputs, torch.randint(self.outputs, shape, generator=draw)
        inputs = torch.randn(count, *self.row, generator=draw)
        return inputs, torch.randint(self.outputs, (count,), generator=draw)

    def there(self, device: torch.device) -> nn.Module:
        """Return the network on a device, laid out as it is run."""
        network = self.build().to(device)
        # Only filters have a place for channels that could be last.
        layout = torch.channels_last if self.narrow else torch.preserve_format
        return network.to(memory_format=layout)  # type: ignore[call-overload]

    def batches(self, device: torch.device, count: int) -> list[tuple[Tensor, Tensor]]:
        """Return batches on a device, laid out as they are used."""
        rows = [self.rows(self.batch, seed) for seed in range(count)]
        layout = torch.channels_last if self.narrow else torch.preserve_format
        return [(x.to(device, memory_format=layout), targets.to(device)) for x, targets in rows]

    def arithmetic(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the type that forward passes run in, as a context."""
        return torch.autocast(device.type, torch.bfloat16) if self.narrow else nullcontext()

    @property
    def words(self) -> tuple[str, ...]:
        """What a run of ours on it is told."""
        sizes = (f"batch_size={self.batch}", f"meta_batch_size={self.batch}")
        return (*sizes, "precision=bf16", "channels_last=true") if self.narrow else sizes

    def task(self) -> Task:
        """Return a task of four batches each."""
        parts = [self.rows(4 * self.batch, seed) for seed in range(3)]
        return metaloss.task_from_data(*parts, name=self.model)


def _grouped(network: nn.Module, groups: int) -> nn.Module:
    """Put a GroupNorm in the place of every BatchNorm."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            network.set_submodule(name, nn.GroupNorm(groups, module.num_features))
    return network


RESNET = Workload(model="resnet18", options={"width": 64}, row=(3, 32, 32), outputs=10, batch=128)
WRN = Workload(
    model="wrn", options={"depth": 28, "widen": 10}, row=(3, 32, 32), outputs=10, batch=128
)
WORKLOADS = {
    "ResNet-18, width 16, 32×32, batch 64": Workload(
        model="resnet18", options={"width": 16}, row=(3, 32, 32), outputs=10, batch=64
    ),
    "ResNet-18, width 16, GroupNorm, 32×32, batch 64": Workload(
        model="resnet18", options={"width": 16}, row=(3, 32, 32), outputs=10, batch=64, groups=8
    ),
    "LeNet-5, batch 128": Workload(model="lenet5", row=(1, 32, 32), outputs=10, batch=128),
    "MLP 3072-1000-10, batch 128": Workload(
        model="mlp", options={"hidden": [1000]}, row=(3072,), outputs=10, batch=128
    ),
    "transformer, 4 layers, d = 128, 128 tokens, batch 16": Workload(
        model="gpt", row=(128,), outputs=65, batch=16, tokens=True
    ),
}
# The sizes of the literature, for a GPU.
LARGE = {
    "LeNet-5, batch 100": Workload(model="lenet5", row=(1, 32, 32), outputs=10, batch=100),
    "ResNet-18, 32×32, batch 128, bf16": replace(RESNET, narrow=True),
    "ResNet-18, 32×32, batch 128, fp32": RESNET,
    "WRN-28-10, batch 128, bf16": replace(WRN, narrow=True),
    "WRN-28-10, batch 128, fp32": WRN,
}
EVERY = WORKLOADS | LARGE
