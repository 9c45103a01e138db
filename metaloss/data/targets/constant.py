"""The task loss of the best constant prediction. A model above it has learned nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from metaloss.data.targets.metrics import IGNORED


def class_entropy(
    targets: Tensor,
    outputs: int,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int = IGNORED,
    weights: Sequence[float] | None = None,
) -> float:
    """Return the entropy of the class frequencies in nats, the constant loss of cross-entropy.

    Args:
        targets: (B, *) class indices, or (B, C, *) soft labels.
        outputs: C.
        label_smoothing: See `torch.nn.functional.cross_entropy`.
        ignore_index: The class index that does not count.
        weights: C weights of the rows of each class; None: equal. Not with soft labels.

    Example:
        >>> round(class_entropy(torch.tensor([0, 0, 1, 1]), 2), 4)
        0.6931
    """
    if targets.is_floating_point():
        shares = targets.double().transpose(0, 1).flatten(1).mean(dim=1)
    else:
        counts = torch.bincount(targets[targets != ignore_index], minlength=outputs).double()
        if weights is not None:
            counts = counts * torch.tensor(weights, dtype=torch.float64)
        shares = counts / counts.sum()
    shares = (1 - label_smoothing) * shares + label_smoothing / outputs
    return torch.special.entr(shares).sum().item()


def binary_entropy(targets: Tensor) -> float:
    """Return the mean entropy of yes/no targets (B, C, *) in nats, with a constant for each c.

    Example:
        >>> round(binary_entropy(torch.tensor([[0.0, 1.0], [1.0, 1.0]])), 4)
        0.3466
    """
    yes = targets.double().transpose(0, 1).flatten(1).mean(dim=1)
    return (torch.special.entr(yes) + torch.special.entr(1 - yes)).mean().item()


def target_variance(targets: Tensor) -> float:
    """Return the variance of real targets (B, C, *), averaged over c: the constant loss of mse.

    Example:
        >>> target_variance(torch.tensor([[0.0], [2.0]]))
        1.0
    """
    values = targets.double().transpose(0, 1).flatten(1)
    return values.var(dim=1, correction=0).mean().item()


def fitted_constant(
    targets: Tensor, outputs: int, task_loss: Callable[[Tensor, Tensor], Tensor]
) -> tuple[float, Tensor]:
    """Return the lowest task loss of constant raw outputs, and these outputs (1, C, *1).

    They are found by L-BFGS in double precision, for task losses without a closed form.

    Args:
        targets: (B, *) class indices or (B, C, *) values.
        outputs: C.
        task_loss: ``(raw outputs (B, C, *), targets) -> scalar``.

    Example:
        >>> lowest, where = fitted_constant(torch.tensor([[0.0], [2.0]]), 1, torch.nn.MSELoss())
        >>> round(lowest, 6), round(where.item(), 6)
        (1.0, 1.0)
    """
    real = targets.is_floating_point()
    if real:
        targets = targets.double()
    places = targets.shape[2:] if real else targets.shape[1:]
    constant = torch.zeros(1, outputs, *[1] * len(places), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([constant], max_iter=200, line_search_fn="strong_wolfe")
    lowest, where = float("inf"), constant.detach().clone()

    def closure() -> Tensor:
        nonlocal lowest, where
        search.zero_grad()
        with torch.enable_grad():
            loss = task_loss(constant.expand(len(targets), outputs, *places), targets)
            loss.backward()
        if loss.item() < lowest:
            lowest, where = loss.item(), constant.detach().clone()
        return loss

    search.step(closure)
    return lowest, where
