"""Learn to reweight rows, in metaloss, TorchOpt and higher.

TorchOpt's own example is "Learning to reweight examples" (Ren et al., 2018): a classifier of two
digits, one of which is rare. In each step, every row of the batch gets the weight that would have
lowered the loss of a few balanced rows. Here the digits are scikit-learn's. The same step is
written with each library, and ends with the same network. Run it:

    python examples/reweight.py
"""

import inspect
import warnings

import higher
import torch
import torchopt
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import metaloss
from metaloss import SGD

RATE = 0.3


class Weighted(nn.Module):
    """The weighted sum of the rows' losses; φ is the weights. Targets are (label, row number)."""

    def __init__(self, rows):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows))

    def forward(self, outputs, targets):
        """Return the sum."""
        label, row = targets.unbind(1)
        return (self.weight[row] * cross_entropy(outputs, label, reduction="none")).sum()


def with_metaloss(model, batch, trusted):
    def numbered(pair):
        return pair[0], torch.stack([pair[1], torch.arange(len(pair[1]))], 1)

    return metaloss.meta_gradient(
        model,
        Weighted(len(batch[1])),
        [numbered(batch)],
        numbered(trusted),
        inner=SGD(lr=RATE, momentum=0.0),
        task_loss=lambda outputs, targets: cross_entropy(outputs, targets[:, 0]),
    )["weight"]


def with_torchopt(model, batch, trusted):
    optimizer = torchopt.MetaSGD(model, lr=RATE)
    before = torchopt.extract_state_dict(model, by="reference")
    weight = torch.zeros(len(batch[1]), requires_grad=True)
    loss = (weight * cross_entropy(model(batch[0]), batch[1], reduction="none")).sum()
    optimizer.step(loss)
    judged = cross_entropy(model(trusted[0]), trusted[1])
    slope = torch.autograd.grad(judged, weight)[0]
    torchopt.recover_state_dict(model, before)
    return slope


def with_higher(model, batch, trusted):
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    with higher.innerloop_ctx(model, optimizer) as (functional, steps):
        weight = torch.zeros(len(batch[1]), requires_grad=True)
        outputs = functional(batch[0])
        steps.step((weight * cross_entropy(outputs, batch[1], reduction="none")).sum())
        judged = cross_entropy(functional(trusted[0]), trusted[1])
        return torch.autograd.grad(judged, weight)[0]


WAYS = {
    "metaloss": (Weighted, with_metaloss),
    "torchopt": (with_torchopt,),
    "higher": (with_higher,),
}


def rows_of_digits(draw):
    """Return training rows with 10 fours and 100 nines, 20 balanced rows, and test rows."""
    images, digits = load_digits(return_X_y=True)
    parts = [], [], []
    for label, (digit, count) in enumerate(((4, 10), (9, 100))):
        own = torch.tensor(images[digits == digit], dtype=torch.float32) / 16
        own = own[torch.randperm(len(own), generator=draw)]
        for part, rows in zip(parts, (own[:count], own[100:110], own[110:]), strict=True):
            part.append((rows, torch.full((len(rows),), label)))
    return [tuple(map(torch.cat, zip(*part, strict=True))) for part in parts]


def train(slopes=None):
    """Train a classifier, with learned weights or plainly; return its test error and |θ|."""
    draw = torch.Generator().manual_seed(0)
    train_rows, trusted, (test, answers) = rows_of_digits(draw)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for _ in range(60):
        rows = torch.randint(len(train_rows[1]), (32,), generator=draw)
        batch = train_rows[0][rows], train_rows[1][rows]
        weight = torch.full((32,), 1 / 32)
        if slopes is not None:
            weight = (-slopes(model, batch, trusted)).clamp(min=0)
            weight = weight / weight.sum().clamp(min=1e-12)
        optimizer.zero_grad()
        (weight * cross_entropy(model(batch[0]), batch[1], reduction="none")).sum().backward()
        optimizer.step()
    with torch.no_grad():
        error = (model(test).argmax(1) != answers).float().mean().item()
        return error, torch.cat([value.flatten() for value in model.parameters()]).norm().item()


def lines(parts):
    """Return the number of lines of code of some functions and classes."""
    code = [line for part in parts for line in inspect.getsource(part).splitlines()]
    return sum(bool(line.strip()) for line in code)


def main():
    error, size = train()
    print(f"{'plain':9} test error {error:.4f}, |θ| {size:.5f}")
    for name, parts in WAYS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # higher's
            error, size = train(parts[-1])
        print(f"{name:9} test error {error:.4f}, |θ| {size:.5f}, {lines(parts)} lines")


if __name__ == "__main__":
    main()
