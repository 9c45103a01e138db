"""A module and its training, as people have them; as a script, a training that may be killed.

``python training.py FOLDER [--kill STEP] [--devices 2]`` writes the end to ``FOLDER/end.pt``.
"""

import argparse
import os
import signal
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from metaloss_lightning import LearnedLoss
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler, TensorDataset

from metaloss import MLPLoss


def rows(seed, count):
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 6, generator=draw)
    return TensorDataset(inputs, inputs[:, :3].argmax(1))


class Net(pl.LightningModule):
    """An ordinary module: nothing in it knows of a learned loss."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(
                nn.Linear(6, 16),
                nn.BatchNorm1d(16),
                nn.ReLU(),
                nn.Dropout(0.2),
                nn.Linear(16, 3),
            )

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        outputs = self(x)
        loss = F.cross_entropy(outputs, y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self(x), y))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.03)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


class InEpochs(Sampler):
    """A new order in each epoch, which depends on its number alone.

    Of ``size`` processes, each has its part of every 16 rows.
    """

    def __init__(self, count, size=1):
        self.count, self.size, self.epoch = count, size, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.count // self.size

    def __iter__(self):
        draw = torch.Generator().manual_seed(self.epoch)
        order = torch.randperm(self.count, generator=draw)
        rank = int(os.environ.get("LOCAL_RANK", 0))  # set by Lightning
        return iter(order.view(-1, self.size, 16 // self.size)[:, rank].flatten().tolist())


def new_loss():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return MLPLoss()


def learned(trusted=None, **given):
    trusted = trusted or DataLoader(rows(5, 40), 8, shuffle=True)
    given = {"task_loss": F.cross_entropy, "seed": 3, **given}
    return LearnedLoss(new_loss(), trusted, **given)


def trainer(folder, *callbacks, **given):
    given = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": CSVLogger(folder, name="", version="log"),
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        **given,
    }
    return pl.Trainer(callbacks=list(callbacks), **given)


def end(module, callback):
    """Return all that training has come to."""
    return {"model": module.state_dict(), "callback": callback.state_dict()}


class _Kill(pl.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train(folder, *, kill=0, devices=1, precision="32-true"):
    """Train from the last checkpoint on, if there is one."""
    module, callback = Net(), learned(DataLoader(rows(5, 40), 16 // devices, shuffle=True))
    run = trainer(
        folder,
        callback,
        ModelCheckpoint(folder, save_last=True, filename="best"),
        LearningRateMonitor("step"),
        *([_Kill(kill)] if kill else []),
        max_epochs=3,
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        precision=precision,
        use_distributed_sampler=False,
    )
    last = folder / "last.ckpt"
    loader = DataLoader(rows(1, 64), 16 // devices, sampler=InEpochs(64, devices))
    ckpt_path = last if last.exists() else None
    run.fit(module, loader, DataLoader(rows(2, 32), 32), ckpt_path=ckpt_path)
    if run.global_rank == 0:
        torch.save(end(module, callback), folder / "end.pt")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--kill", type=int, default=0)
    arguments.add_argument("--devices", type=int, default=1)
    arguments.add_argument("--precision", default="32-true")
    warnings.simplefilter("ignore")
    train(**vars(arguments.parse_args()))
