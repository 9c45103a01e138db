"""The same step in plain PyTorch, and as today's libraries are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from metaloss.core.compilation.program import Compiled
from metaloss.losses import MLPLoss

from .workloads import Workload

RATE, OUTER_RATE = 0.01, 1e-3


def plain(
    work: Workload, device: torch.device, *, compiled: bool, graphs: bool = False
) -> Callable[[], object]:
    """Return a training step under cross-entropy, with torch's own SGD.

    ``graphs``: replay its passes as CUDA graphs.
    """
    model, (batch,) = work.there(device), work.batches(device, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)

    def loss_of(inputs: Tensor, targets: Tensor) -> Tensor:
        with work.arithmetic(device):
            return F.cross_entropy(model(inputs), targets)

    mode = "reduce-overhead" if graphs else None
    forward = torch.compile(loss_of, fullgraph=True, dynamic=False, mode=mode)
    forward = forward if compiled else loss_of

    def step() -> object:
        optimizer.zero_grad()
        loss = forward(*batch)
        loss.backward()
        optimizer.step()
        return loss.detach().clone()

    return step


def with_higher(
    work: Workload, device: torch.device, *, unroll: int = 1
) -> Callable[[], nn.Module]:
    """Return an online step as higher's users write it: unroll, judge, go back, keep θ."""
    import higher

    model, batches = work.there(device), work.batches(device, unroll + 1)
    loss = MLPLoss().to(device)
    inner = torch.optim.SGD(model.parameters(), lr=RATE)
    outer = torch.optim.Adam(loss.parameters(), lr=OUTER_RATE)

    def step() -> nn.Module:
        with higher.innerloop_ctx(model, inner) as (patched, stepper):
            predict = _narrowly(patched, work, device)
            for inputs, targets in batches[:-1]:
                stepper.step(loss(predict(inputs), targets))
            inputs, targets = batches[-1]
            judged = F.cross_entropy(predict(inputs), targets)
            outer.zero_grad()
            judged.backward()
            outer.step()
            with torch.no_grad():
                for own, new in zip(model.parameters(), patched.fast_params, strict=True):
                    own.copy_(new)
        return loss

    return step


def with_torchopt(work: Workload, device: torch.device) -> Callable[[], nn.Module]:
    """Return an online step as torchopt's users write it."""
    import torchopt

    model, batches = work.there(device), work.batches(device, 2)
    loss = MLPLoss().to(device)
    inner = torchopt.MetaSGD(model, lr=RATE)
    outer = torch.optim.Adam(loss.parameters(), lr=OUTER_RATE)
    predict = _narrowly(model, work, device)

    def step() -> nn.Module:
        (inputs, targets), (judges, answers) = batches
        inner.step(loss(predict(inputs), targets))
        judged = F.cross_entropy(predict(judges), answers)
        outer.zero_grad()
        judged.backward()
        outer.step()
        torchopt.stop_gradient(model)
        torchopt.stop_gradient(inner)
        return loss

    return step


def _narrowly(
    model: Callable[[Tensor], Tensor], work: Workload, device: torch.device
) -> Callable[[Tensor], Tensor]:
    def predict(inputs: Tensor) -> Tensor:
        with work.arithmetic(device):
            return model(inputs).float()

    return predict


class PerClass(nn.Module):
    """The learned loss as the literature's code has it: a loop over classes."""

    def __init__(self, widths: tuple[int, ...] = (2, 40, 40, 1)) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        p = outputs.softmax(1)
        t = F.one_hot(targets, outputs.shape[1]).to(p.dtype)
        total = outputs.new_zeros(())
        for c in range(outputs.shape[1]):
            hidden = torch.stack((t[:, c], p[:, c]), 1)
            for layer in self.layers[:-1]:
                hidden = layer(hidden)
                hidden = F.softplus(hidden, beta=10) * 0.99 + 0.01 * hidden
            total = total + self.layers[-1](hidden).mean()
        return total / outputs.shape[1]


def derivatives(
    loss: nn.Module, *, rows: int, classes: int, device: torch.device, compiled: bool = False
) -> Callable[[], object]:
    """Return a call that takes L, ∂L/∂z and ∂/∂φ⟨∂L/∂z, u⟩: what a meta-step asks of a loss."""
    draw = torch.Generator().manual_seed(0)
    outputs = torch.randn(rows, classes, generator=draw).to(device)
    targets = torch.randint(classes, (rows,), generator=draw).to(device)
    direction = torch.randn(rows, classes, generator=draw).to(device)
    phi = {name: value.detach() for name, value in loss.to(device).named_parameters()}

    def function(
        phi: dict[str, Tensor], outputs: Tensor, targets: Tensor, direction: Tensor
    ) -> object:
        leaves = {name: value.detach().requires_grad_() for name, value in phi.items()}
        outputs = outputs.detach().requires_grad_()
        with torch.enable_grad():
            value = torch.func.functional_call(loss, leaves, (outputs, targets))
            (slope,) = torch.autograd.grad(value, outputs, create_graph=True)
            ends = (slope * direction).sum()
            moved = torch.autograd.grad(
                ends, list(leaves.values()), allow_unused=True, materialize_grads=True
            )
        return value.detach(), slope.detach(), moved

    whole = Compiled(function) if compiled else function
    return lambda: whole(phi, outputs, targets, direction)


class Pictures(Dataset):
    """Pictures as a data set of torchvision's holds them, with the usual transforms."""

    def __init__(self, rows: int) -> None:
        draw = np.random.default_rng(0)
        self.pictures = draw.integers(256, size=(rows, 32, 32, 3), dtype=np.uint8)
        mean = std = (0.5, 0.5, 0.5)
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pictures[index])), 0


def pictures(
    device: torch.device, rows: int, batch: int, batches: int, workers: int
) -> Callable[[], object]:
    """Return a call that takes some batches from a `DataLoader` to the device."""
    loader = DataLoader(
        Pictures(rows),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )

    def forever() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    endless = forever()

    def call() -> object:
        for _ in range(batches):
            inputs, labels = next(endless)
            moved = inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        return moved

    return call
