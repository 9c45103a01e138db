"""Learn the loss inside a training loop of your own.

Half of the training labels are wrong; 100 clean rows judge the loss. Run it:

    python examples/own_loop.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import metaloss
from metaloss import SGD, Imitate, MLPLoss
from metaloss.losses import CrossEntropy

# Rows: 800 to train on, 100 to judge the loss by, the rest to test on.
images, digits = load_digits(return_X_y=True)
inputs = torch.tensor(images, dtype=torch.float32) / 16
labels = torch.tensor(digits)
draw = torch.Generator().manual_seed(0)
train, valid, test = torch.randperm(len(labels), generator=draw).split([800, 100, 897])

# Half of the training labels become any other digit.
noisy = labels.clone()
wrong = train[:400]
noisy[wrong] = (labels[wrong] + torch.randint(1, 10, (400,), generator=draw)) % 10


def train_with(loss, *, learns):
    """Train a network under a loss, which learns as well if asked to; return the test error."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    learner = metaloss.Learner(
        model, loss, task_loss=cross_entropy, inner=SGD(lr=0.1), meta_optimizer="mixed"
    )
    for _ in range(800):
        rows = train[torch.randint(len(train), (64,), generator=draw)]
        judges = valid[torch.randint(len(valid), (64,), generator=draw)]
        # One step of the model, and then, if there is a judge, one of the loss.
        learner.step(
            (inputs[rows], noisy[rows]),
            meta_batch=(inputs[judges], labels[judges]) if learns else None,
        )
    # The model is the ordinary module that it was, with its current weights.
    with torch.no_grad():
        return (model(inputs[test]).argmax(1) != labels[test]).float().mean().item()


def main():
    fixed = train_with(CrossEntropy(), learns=False)
    # A random loss can point anywhere: begin with one that acts like cross-entropy.
    loss = metaloss.imitate(MLPLoss(), cross_entropy, outputs=10, config=Imitate(steps=800))
    learned = train_with(loss, learns=True)
    print(f"test error with cross-entropy:    {fixed:.3f}")
    print(f"test error with the learned loss: {learned:.3f}")


if __name__ == "__main__":
    main()
