"""The task loss of the best constant prediction. A model above it has learned nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


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
