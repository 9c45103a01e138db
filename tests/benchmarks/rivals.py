"""The same step in plain PyTorch, and as today's libraries are used."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaloss.core.compiled import Compiled
from metaloss.losses import MLPLoss

from .workloads import Workload

RATE, OUTER_RATE = 0.01, 1e-3


def plain(work: Workload, device: torch.device, *, compiled: bool) -> Callable[[], object]:
    """Return a training step under cross-entropy, with torch's own SGD."""
    model, (batch,) = work.build().to(device), _batches(work, device, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)

    def loss_of(inputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(model(inputs), targets)

    forward = torch.compile(loss_of, fullgraph=True, dynamic=False) if compiled else loss_of

    def step() -> object:
        optimizer.zero_grad()
        loss = forward(*batch)
        loss.backward()
        optimizer.step()
        return loss

    return step


def with_higher(
    work: Workload, device: torch.device, *, unroll: int = 1
) -> Callable[[], nn.Module]:
    """Return an online step as higher's users write it: unroll, judge, go back, keep θ."""
    import higher

    model, batches = work.build().to(device), _batches(work, device, unroll + 1)
    loss = MLPLoss().to(device)
    inner = torch.optim.SGD(model.parameters(), lr=RATE)
    outer = torch.optim.Adam(loss.parameters(), lr=OUTER_RATE)

    def step() -> nn.Module:
        with higher.innerloop_ctx(model, inner) as (patched, stepper):
            for inputs, targets in batches[:-1]:
                stepper.step(loss(patched(inputs), targets))
            inputs, targets = batches[-1]
            judged = F.cross_entropy(patched(inputs), targets)
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

    model, batches = work.build().to(device), _batches(work, device, 2)
    loss = MLPLoss().to(device)
    inner = torchopt.MetaSGD(model, lr=RATE)
    outer = torch.optim.Adam(loss.parameters(), lr=OUTER_RATE)

    def step() -> nn.Module:
        (inputs, targets), (judges, answers) = batches
        inner.step(loss(model(inputs), targets))
        judged = F.cross_entropy(model(judges), answers)
        outer.zero_grad()
        judged.backward()
        outer.step()
        torchopt.stop_gradient(model)
        torchopt.stop_gradient(inner)
        return loss

    return step


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
    loss: nn.Module, rows: int, classes: int, *, compiled: bool = False
) -> Callable[[], object]:
    """Return a call that takes L, ∂L/∂z and ∂/∂φ⟨∂L/∂z, u⟩: what a meta-step asks of a loss."""
    draw = torch.Generator().manual_seed(0)
    outputs = torch.randn(rows, classes, generator=draw)
    targets = torch.randint(classes, (rows,), generator=draw)
    direction = torch.randn(rows, classes, generator=draw)
    phi = {name: value.detach() for name, value in loss.named_parameters()}

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


def _batches(work: Workload, device: torch.device, count: int) -> list[tuple[Tensor, Tensor]]:
    rows = [work.rows(work.batch, seed) for seed in range(count)]
    return [(inputs.to(device), targets.to(device)) for inputs, targets in rows]
