"""A learner that follows the rates of an optimizer of ``torch.optim``, which others schedule."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from metaloss.core.learner.learner import Learner
from metaloss.errors import MetalossError


class Followed:
    """The optimizer that a `Learner` was made from, whose rates may change at any time.

    A trainer of another library steps its schedulers as ever. Before each step the learner takes
    the rates that they have set. The optimizer itself takes no steps.

    Args:
        learner: The learner.
        optimizer: The optimizer that was its ``inner``.

    Example:
        >>> import torch
        >>> from metaloss import MLPLoss
        >>> model = torch.nn.Linear(3, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> task_loss = torch.nn.functional.cross_entropy
        >>> learner = Learner(model, MLPLoss(), task_loss=task_loss, inner=optimizer)
        >>> followed = Followed(learner, optimizer)
        >>> optimizer.param_groups[0]["lr"] = 0.05
        >>> followed.take_rates()
        [0.05]
    """

    def __init__(self, learner: Learner, optimizer: Optimizer) -> None:
        self._learner, self._optimizer = learner, optimizer
        self._others = self._options()

    def take_rates(self) -> list[float]:
        """Give the learner the current rates, one for each group, and return them.

        Raises:
            MetalossError: If another option than the rate has changed.
        """
        for number, (before, now) in enumerate(zip(self._others, self._options(), strict=True)):
            for name, value in now.items():
                if before.get(name) != value:
                    raise MetalossError(
                        f"{name} of group {number} of the optimizer has changed from "
                        f"{before.get(name)} to {value}, but only the rate can be followed: a "
                        "scheduler that changes the momentum needs cycle_momentum=False"
                    )
        rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        self._learner.set_lr(rates)
        return rates

    def _options(self) -> list[dict[str, Any]]:
        return [
            {
                name: value.item() if isinstance(value, Tensor) else value
                for name, value in group.items()
                if name in ("momentum", "betas", "weight_decay", "eps", "alpha", "dampening")
            }
            for group in self._optimizer.param_groups
        ]
