"""Fine-tune the head of a torchvision network under a learned loss, in Lightning.

The network first learns the digits 0 to 4. Then its body is frozen, and a new head learns the
digits 5 to 9 from rows of which half have a wrong label. The loss is learned on 50 rows with right
labels. Nothing is downloaded; with ``weights="DEFAULT"`` the body is ImageNet's. Few epochs on a
body that has seen 900 small images show the code, not what a learned loss is good for. Run it:

    python examples/fine_tune_head.py
"""

import logging
import warnings

import lightning.pytorch as pl
import torch
from metaloss_lightning import LearnedLoss
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, interpolate
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import shufflenet_v2_x0_5

import metaloss
from metaloss import Imitate, MLPLoss


class Classifier(pl.LightningModule):
    """A network of torchvision; nothing in it knows of a learned loss."""

    def __init__(self):
        super().__init__()
        self.net = shufflenet_v2_x0_5(weights=None, num_classes=5)

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = cross_entropy(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def test_step(self, batch, batch_idx):
        images, labels = batch
        self.log("test_error", (self(images).argmax(1) != labels).float().mean())

    def configure_optimizers(self):
        trained = [value for value in self.parameters() if value.requires_grad]
        return torch.optim.Adam(trained, lr=0.01)


def digits_of(lowest):
    """Return images (N, 3, 32, 32) and labels of five digits."""
    images, digits = load_digits(return_X_y=True)
    chosen = (digits >= lowest) & (digits < lowest + 5)
    images = torch.tensor(images[chosen], dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1
    images = interpolate(images, scale_factor=4).expand(-1, 3, -1, -1).contiguous()
    return images, torch.tensor(digits[chosen]) - lowest


def fit(module, rows, epochs, *callbacks):
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(rows, 64, shuffle=True, drop_last=True))
    return trainer


def with_new_head(body):
    """Return a classifier whose body is frozen, in evaluation mode too, with a new head."""
    torch.manual_seed(1)
    module = Classifier()
    module.load_state_dict(body.state_dict())
    module.net.requires_grad_(False)
    module.net.eval()
    module.net.fc = nn.Linear(module.net.fc.in_features, 5)
    return module


def main(epochs=3):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.manual_seed(0)
    body = Classifier()
    fit(body, TensorDataset(*digits_of(0)), 3)

    images, labels = digits_of(5)
    draw = torch.Generator().manual_seed(0)
    train, trusted, test = torch.randperm(len(labels), generator=draw).split([450, 50, 396])
    noisy = labels.clone()
    noisy[train[:225]] = (labels[train[:225]] + torch.randint(1, 5, (225,), generator=draw)) % 5
    rows = TensorDataset(images[train], noisy[train])
    loader = DataLoader(TensorDataset(images[trusted], labels[trusted]), 50, shuffle=True)
    loss = metaloss.imitate(MLPLoss(), cross_entropy, outputs=5, config=Imitate(steps=200))
    learned = LearnedLoss(loss, loader, task_loss=cross_entropy)
    for name, callbacks in (("cross-entropy", ()), ("the learned loss", (learned,))):
        module = with_new_head(body)
        trainer = fit(module, rows, epochs, *callbacks)
        rest = DataLoader(TensorDataset(images[test], labels[test]), len(test))
        error = trainer.test(module, rest, verbose=False)[0]["test_error"]
        print(f"test error with {name}: {error:.3f}")


if __name__ == "__main__":
    main()
