"""A loss of your own in thirty lines, used by name like the built-in ones.

As a script, it trains with the loss. For the command line, it is a plugin:

    python examples/own_loss_plugin.py
    metaloss train --plugin examples/own_loss_plugin.py loss=cauchy task=diabetes
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import metaloss
from metaloss.losses import LearnedLoss


@dataclass(frozen=True, kw_only=True)
class CauchyConfig:
    """Options of ``cauchy``, such as loss.width=2.0."""

    width: float = field(default=1.0, metadata={"help": "initial width; larger errors count less"})


@metaloss.register("loss", "cauchy")
class Cauchy(LearnedLoss):
    """w² log(1 + (p − t)² / w²), which is the squared error for small errors; φ is log w."""

    Config = CauchyConfig

    def __init__(self, config: CauchyConfig, *, link) -> None:
        super().__init__(config, link=link)
        self.log_width = nn.Parameter(torch.tensor(config.width).log())

    def pointwise(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the loss of every output; all shapes (B, C, *)."""
        width2 = (2 * self.log_width).exp()
        return width2 * torch.log1p((prediction - target) ** 2 / width2)


def main():
    # A fifth of the training targets are outliers, which a narrow loss ignores.
    common = {"task": "diabetes", "task.label_noise": 0.2, "steps": 600, "tracker": []}
    common |= {"inner.lr": 0.01, "meta_optimizer.lr": 0.01}
    runs = {
        "squared error": {"schedule": "static", "loss": "mse"},
        "Cauchy, fixed": {"schedule": "static", "loss": "cauchy", "start": "keep"},
        "Cauchy, learned": {"schedule": "online", "loss": "cauchy", "start": "keep"},
    }
    for name, choice in runs.items():
        run = metaloss.train({**common, **choice})
        width = getattr(run.loss, "log_width", None)
        told = "" if width is None else f", width {width.exp().item():.2f}"
        print(f"{name:16} test mse {run.summary.metrics['test/mse']:.2f}{told}")


if __name__ == "__main__":
    main()
