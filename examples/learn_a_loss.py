"""Learn a loss while a network trains, in metaloss, TorchOpt and higher.

The online loop of a learned loss: a step of SGD under the loss, then a step of the loss along the
gradient of the cross-entropy that follows, on other rows. The same loop is written with each
library, and ends with the same network and loss. (With Adam it does not: TorchOpt's gradient is NaN
where an input is always zero, and higher's Adam takes other steps than PyTorch's.) Run it:

    python examples/learn_a_loss.py
"""

import copy
import inspect
import warnings

import higher
import torch
import torchopt
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import metaloss
from metaloss import SGD, Imitate, Mixed, MLPLoss

RATE, MOMENTUM, META_RATE = 0.1, 0.9, 0.003


def with_metaloss(model, loss, steps):
    learner = metaloss.Learner(
        model,
        loss,
        task_loss=cross_entropy,
        inner=SGD(lr=RATE, momentum=MOMENTUM),
        meta_optimizer=Mixed(lr=META_RATE),
    )
    for batch, trusted in steps:
        learner.step(batch, trusted)
    return model, loss


def with_torchopt(model, loss, steps):
    outer = torch.optim.Adam(loss.parameters(), lr=META_RATE)
    inner = torchopt.MetaSGD(model, lr=RATE, momentum=MOMENTUM)
    for batch, trusted in steps:
        inner.step(loss(model(batch[0]), batch[1]))
        judged = cross_entropy(model(trusted[0]), trusted[1])
        gradients = torch.autograd.grad(judged, list(loss.parameters()))
        for value, gradient in zip(loss.parameters(), gradients, strict=True):
            value.grad = gradient
        outer.step()
        torchopt.stop_gradient(model)
        torchopt.stop_gradient(inner)
    return model, loss


def with_higher(model, loss, steps):
    outer = torch.optim.Adam(loss.parameters(), lr=META_RATE)
    inner = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    for batch, trusted in steps:
        with higher.innerloop_ctx(model, inner) as (functional, differentiable):
            differentiable.step(loss(functional(batch[0]), batch[1]))
            judged = cross_entropy(functional(trusted[0]), trusted[1])
            gradients = torch.autograd.grad(judged, list(loss.parameters()))
        # The network takes the same step once more, since the copy's state cannot be taken back.
        inner.zero_grad()
        loss(model(batch[0]), batch[1]).backward()
        inner.step()
        for value, gradient in zip(loss.parameters(), gradients, strict=True):
            value.grad = gradient
        outer.step()
    return model, loss


WAYS = {"metaloss": with_metaloss, "torchopt": with_torchopt, "higher": with_higher}


def batches(count):
    """Return pairs of batches: with 40 % wrong labels, and with right ones."""
    images, digits = load_digits(return_X_y=True)
    inputs, labels = torch.tensor(images, dtype=torch.float64) / 16, torch.tensor(digits)
    draw = torch.Generator().manual_seed(0)
    noisy = labels.clone()
    noisy[:400] = (labels[:400] + torch.randint(1, 10, (400,), generator=draw)) % 10
    found = []
    for _ in range(count):
        rows = torch.randint(0, 1000, (64,), generator=draw)
        clean = torch.randint(1000, 1100, (64,), generator=draw)
        found.append(((inputs[rows], noisy[rows]), (inputs[clean], labels[clean])))
    return found, (inputs[1100:], labels[1100:])


def lines(function):
    """Return the number of lines of code of a function."""
    code = (line.strip() for line in inspect.getsource(function).splitlines())
    return sum(bool(line) and not line.startswith("#") for line in code)


def main(count=20):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).double()
    loss = metaloss.imitate(MLPLoss(), cross_entropy, outputs=10, config=Imitate(steps=300))
    steps, (test, answers) = batches(count)
    for name, way in WAYS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # higher's
            trained, learned = way(copy.deepcopy(model), copy.deepcopy(loss).double(), steps)
        value = cross_entropy(trained(test), answers).item()
        phi = torch.cat([one.detach().flatten() for one in learned.parameters()]).norm().item()
        print(f"{name:9} test loss {value:.9f}, |φ| {phi:.9f}, {lines(way)} lines")


if __name__ == "__main__":
    main()
