"""What is right, by plain torch: nothing of metaloss takes part but the loss that is learned.

Training is what ``torch.optim`` does to a copy of the model. The meta-gradient is torch's own graph
through the steps, and central differences in φ of such training.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from metaloss.losses import MLPLoss
from metaloss.losses.mlp import Activation, MLPLossConfig

Pairs = list[tuple[Tensor, Tensor]]
RATE, EPSILON = 0.1, 2e-5
OPTIMIZERS: dict[str, Callable] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=RATE),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=RATE, eps=0.1),
}
task_loss = nn.functional.cross_entropy


def learned_loss() -> MLPLoss:
    """Return a loss with 21 parameters, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        loss = MLPLoss(MLPLossConfig(hidden=[5], activation=Activation.tanh))
    with torch.no_grad():  # a loss that pulls, so that θ moves by as much as under cross-entropy
        for value in loss.parameters():
            value.mul_(3)
    return loss.double()


def outputs_of(model: nn.Module, inputs) -> Tensor:
    """Return the raw outputs; inputs by name, several, or one; outputs likewise."""
    inputs = pytree.tree_map(torch.clone, inputs)
    if (
        isinstance(inputs, dict)
        and inputs.keys() <= inspect.signature(model.forward).parameters.keys()
    ):
        found = model(**inputs)
    elif isinstance(inputs, tuple):
        found = model(*inputs)
    else:
        found = model(inputs)
    if isinstance(found, Tensor):
        return found
    if isinstance(found, dict):
        return found["out"] if "out" in found else found["logits"]
    return found[0] if isinstance(found, tuple) else found.logits


def train(model: nn.Module, loss: nn.Module, pairs: Pairs, optimizer: str = "sgd") -> nn.Module:
    """Take a step on each batch; return the model."""
    rule = OPTIMIZERS[optimizer]([p for p in model.parameters() if p.requires_grad])
    walk(model, loss, pairs, rule)
    return model


def walk(model: nn.Module, loss: nn.Module, pairs: Pairs, rule: torch.optim.Optimizer) -> None:
    """Take a step on each batch: what people write."""
    for inputs, targets in pairs:
        rule.zero_grad()
        loss(outputs_of(model, inputs), targets).backward()
        rule.step()


def measured(model: nn.Module, pair: tuple[Tensor, Tensor]) -> Tensor:
    """Return the task loss in the mode that the model is in; its state moves on."""
    with torch.no_grad():
        return task_loss(outputs_of(model, pair[0]), pair[1])


def measured_aside(model: nn.Module, pair: tuple[Tensor, Tensor]) -> Tensor:
    """Return the task loss; the model's state stays where it is."""
    try:
        return measured(copy.deepcopy(model), pair)
    except RuntimeError:  # the old normalizations of weights cannot be copied: their state is saved
        kept = {name: value.clone() for name, value in model.state_dict().items()}
        found = measured(model, pair)
        model.load_state_dict(kept)
        return found


def directions(loss: nn.Module, count: int) -> list[dict[str, Tensor]]:
    """Return directions in φ of length 1, always the same."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for _ in range(count):
        drawn = {
            n: torch.randn(p.shape, generator=generator, dtype=p.dtype)
            for n, p in loss.named_parameters()
        }
        length = torch.stack([value.norm() for value in drawn.values()]).norm()
        found.append({name: value / length for name, value in drawn.items()})
    return found


def moved(loss: nn.Module, direction: dict[str, Tensor], size: float) -> nn.Module:
    """Return a copy of the loss at φ + size · direction."""
    loss = copy.deepcopy(loss)
    with torch.no_grad():
        for name, value in loss.named_parameters():
            value.add_(direction[name], alpha=size)
    return loss


def difference(function: Callable[[nn.Module], Tensor], loss: nn.Module, direction) -> Tensor:
    """Return the derivative of ``function`` along a direction: central, of the fourth order."""
    near, far = (
        (function(moved(loss, direction, h)) - function(moved(loss, direction, -h))) / (2 * h)
        for h in (EPSILON, 2 * EPSILON)
    )
    return (4 * near - far) / 3


def along(gradient: dict[str, Tensor], direction: dict[str, Tensor]) -> Tensor:
    """Return ⟨gradient, direction⟩."""
    return sum((gradient[name] * direction[name]).sum() for name in direction)


def differences(make, loss, pairs: Pairs, meta, count: int, optimizer: str = "sgd") -> Tensor:
    """Return derivatives of the task loss after training, along directions in φ."""
    return torch.stack(
        [
            difference(lambda at: measured(train(make(), at, pairs, optimizer), meta), loss, d)
            for d in directions(loss, count)
        ]
    )


def pushed(make, loss, pairs: Pairs, meta, count: int, optimizer: str = "sgd") -> Tensor:
    """Return products of d(task loss)/dφ with directions, where backward is not forward's slope.

    θ after training is differenced in φ; the slope of the task loss in θ is backward's.
    """
    model = train(make(), loss, pairs, optimizer)
    model.zero_grad()
    task_loss(outputs_of(model, meta[0]), meta[1]).backward()
    slopes = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    def along_slopes(at: nn.Module) -> Tensor:
        params = dict(train(make(), at, pairs, optimizer).named_parameters())
        return sum((params[name].detach() * slope).sum() for name, slope in slopes.items())

    return torch.stack([difference(along_slopes, loss, d) for d in directions(loss, count)])


def graph(make, loss, pairs: Pairs, meta, optimizer: str = "sgd") -> dict[str, Tensor]:
    """Return d(task loss)/dφ by torch's graph through the steps."""
    model = make()
    values = {p: p for p in model.parameters() if p.requires_grad}
    moments: dict = dict.fromkeys(values, (0, 0.0, 0.0))
    for inputs, targets in pairs:
        with sdpa_kernel(SDPBackend.MATH):  # the others have no double backward
            outputs = outputs_of(model, inputs)
        grads = torch.autograd.grad(
            loss(outputs, targets).sum(),
            list(values.values()),
            create_graph=True,
            allow_unused=True,
        )
        for first, grad in zip(list(values), grads, strict=True):
            if grad is None:  # torch.optim leaves such a parameter alone
                continue
            if optimizer == "sgd":
                values[first] = values[first] - RATE * grad
            else:
                move, moments[first] = _adam(grad, *moments[first])
                values[first] = values[first] - RATE * move
        _install(model, values)
    with sdpa_kernel(SDPBackend.MATH):
        result = task_loss(outputs_of(model, meta[0]), meta[1])
    names, leaves = zip(*loss.named_parameters(), strict=True)
    grads = torch.autograd.grad(result, leaves, allow_unused=True, materialize_grads=True)
    return dict(zip(names, grads, strict=True))


def _adam(grad: Tensor, step: int, one, two) -> tuple[Tensor, tuple]:
    """Return Adam's move, and its state: a parameter counts its own steps."""
    if grad.is_complex():  # as a pair of real numbers
        move, state = _adam(torch.view_as_real(grad), step, one, two)
        return torch.view_as_complex(move), state
    step, one, two = step + 1, 0.9 * one + 0.1 * grad, 0.999 * two + 0.001 * grad**2
    zero = two == 0
    root = torch.where(zero, 0.0, torch.where(zero, 1.0, two / (1 - 0.999**step)).sqrt())
    return one / (1 - 0.9**step) / (root + 0.1), (step, one, two)


def _install(model: nn.Module, values: dict[nn.Parameter, Tensor]) -> None:
    """Put tensors with a graph in the places of parameters, tied ones everywhere.

    They stay among the module's parameters: a forward pass may go through these.
    """
    for part in model.modules():
        own = part._parameters
        places = part.__dict__.setdefault("_zoo_places", {})
        places |= {name: value for name, value in own.items() if value in values}
        before = dict(own)
        for name, first in places.items():
            if values[first] is not first:
                del own[name]
                setattr(part, name, values[first])  # recurrent layers take note of it
                before[name] = part.__dict__.pop(name)
        own.clear()
        own.update(before)
