"""Learn the loss inside a training loop of your own.

Half of the training labels are wrong; the loss is learned on 100 rows with right labels. Run it:

    python examples/own_loop.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import metaloss
from metaloss import SGD, Imitate, MLPLoss
from metaloss.losses import CrossEntropy

# Rows: 800 for training, 100 for meta-batches, the rest for the test.
images, digits = load_digits(return_X_y=True)
inputs = torch.tensor(images, dtype=torch.float32) / 16
labels = torch.tensor(digits)
draw = torch.Generator().manual_seed(0)
train, valid, test = torch.randperm(len(labels), generator=draw).split([800, 100, 897])

# Half of the training labels become another digit.
noisy = labels.clone()
wrong = train[:400]
noisy[wrong] = (labels[wrong] + torch.randint(1, 10, (400,), generator=draw)) % 10


def train_with(loss, *, learns):
    """Train a network under a loss, which is learned too if ``learns``; return the test error."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    learner = metaloss.Learner(
        model, loss, task_loss=cross_entropy, inner=SGD(lr=0.1), meta_optimizer="mixed"
    )
    for _ in range(400):
        rows = train[torch.randint(len(train), (64,), generator=draw)]
        clean = valid[torch.randint(len(valid), (64,), generator=draw)]
        # One step of the model and then, with a meta-batch, one of the loss.
        learner.step(
            (inputs[rows], noisy[rows]),
            meta_batch=(inputs[clean], labels[clean]) if learns else None,
        )
    # The model is still an ordinary module, and has its current weights.
    with torch.no_grad():
        return (model(inputs[test]).argmax(1) != labels[test]).float().mean().item()


def main():
    fixed = train_with(CrossEntropy(), learns=False)
    # Begin with a loss that trains like cross-entropy.
    loss = metaloss.imitate(MLPLoss(), cross_entropy, outputs=10, config=Imitate(steps=300))
    learned = train_with(loss, learns=True)
    print(f"test error with cross-entropy:    {fixed:.3f}")
    print(f"test error with the learned loss: {learned:.3f}")


if __name__ == "__main__":
    main()
