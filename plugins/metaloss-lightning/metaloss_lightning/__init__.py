"""Train a LightningModule under a learned loss, by one callback."""

from metaloss_lightning.callback import LearnedLoss

__all__ = ["LearnedLoss"]
