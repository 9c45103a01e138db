"""The preset that chooses a loss of rows for tasks with trusted rows, and the picture of it."""

import torch

from metaloss.compose import compose
from metaloss.contracts import TrainOn
from metaloss.core.training.curves import loss_curves
from metaloss.losses.base import phi_of
from metaloss.losses.of_rows.soft_targets import SoftTargets, SoftTargetsConfig
from metaloss.schedules.online import Online


def test_the_preset_auto():
    config = compose(["+preset=auto"])
    assert config.loss.options == SoftTargetsConfig()
    assert config.schedule.options == Online(train_on=TrainOn["train+validation"], judge_rows=0.25)
    assert (config.meta_optimizer.options.lr, config.meta_optimizer.options.rows) == (1e-3, 0.25)
    assert config.task.options.label_smoothing == 0.1
    assert config.ema == 0.998


def test_the_picture_shows_the_slope_that_trains():
    # s = p / (p + r/2), so that dL/dz = −s (1 − p) and dL/dp = −1 / (p + r/2).
    loss = SoftTargets(SoftTargetsConfig(smoothing=0.0, robustness=0.4)).double()
    grid, curves = loss_curves(loss, phi_of(loss))
    off = torch.tensor(curves["t=1"]) + (torch.tensor(grid) + 0.2).log()
    assert (off - off.mean()).abs().max() < 0.02
    assert not any(curves["t=0"])
