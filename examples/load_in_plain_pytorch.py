"""Use a learned loss in a plain PyTorch training loop.

Give the folder of a run or of an export. Without a folder, a short run is trained first:

    python examples/load_in_plain_pytorch.py [FOLDER]
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

import metaloss


def learn_a_loss():
    """Learn a loss offline on digits with half of the labels wrong; return the run's folder."""
    words = ["task=digits", "task.label_noise=0.5", "model.hidden=[32]", "steps=100"]
    words += ["schedule=offline", "schedule.offline_steps=100", "schedule.unroll=5"]
    words += ["start.steps=600", "meta_optimizer.offline_lr=0.01", "tracker=[]"]
    return metaloss.train(words).folder


def train(criterion, inputs, labels):
    """Train another network with another optimizer, in plain PyTorch; return it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(600):
        rows = torch.randint(len(inputs), (64,))
        optimizer.zero_grad()
        criterion(model(inputs[rows]), labels[rows]).backward()
        optimizer.step()
    return model


def main(arguments):
    folder = arguments[0] if arguments else learn_a_loss()
    # The loss is an nn.Module. It is used with fixed φ here.
    learned = metaloss.load_loss(folder).requires_grad_(False)
    print(learned)

    images, digits = load_digits(return_X_y=True)
    inputs, labels = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(digits)
    draw = torch.Generator().manual_seed(0)
    rows, test = torch.randperm(len(labels), generator=draw).split([800, 997])
    noisy = labels[rows]
    noisy[:400] = (noisy[:400] + torch.randint(1, 10, (400,), generator=draw)) % 10

    for name, criterion in (("cross-entropy", nn.CrossEntropyLoss()), ("learned loss", learned)):
        model = train(criterion, inputs[rows], noisy)
        error = (model(inputs[test]).argmax(1) != labels[test]).float().mean().item()
        print(f"{name:13} test error {error:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
