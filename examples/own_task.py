"""Train your own network on your own rows.

The network learns a sine wave from 300 points, a third of them outliers. Run it:

    python examples/own_task.py
"""

import torch
from torch import nn

import metaloss


def wave(count, outliers, draw):
    """Return inputs (B, 1) and targets (B, 1) of a sine wave with a share of outliers."""
    x = 6 * torch.rand(count, 1, generator=draw) - 3
    y = torch.sin(2 * x) + 0.1 * torch.randn(count, 1, generator=draw)
    off = torch.rand(count, 1, generator=draw) < outliers
    return x, torch.where(off, y + 4, y)


def main():
    draw = torch.Generator().manual_seed(0)
    # Pairs of tensors, a Dataset or a DataLoader.
    task = metaloss.task_from_data(
        train=wave(300, 1 / 3, draw),
        valid=wave(60, 0, draw),
        test=wave(500, 0, draw),
        name="wave",
    )
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 1)
    )
    common = ["steps=400", "inner=adam", "inner.lr=0.003", "tracker=[]"]
    for name, *choice in (
        ("squared error", "schedule=static", "loss=mse"),
        ("absolute error", "schedule=static", "loss=mae"),
        ("learned online", "schedule=online", "loss=mlp", "start.steps=200"),
    ):
        # Training begins with the model's current weights. The model itself is not changed.
        run = metaloss.train([*common, *choice], task=task, model=model)
        print(f"{name:15} test mse {run.summary.metrics['test/mse']:.3f}  ({run.folder})")


if __name__ == "__main__":
    main()
