"""The preset that chooses a loss of rows for tasks with trusted rows, and the picture of it."""

import pytest
import torch

import metaloss
from metaloss import LearnedLoss
from metaloss.compose import compose
from metaloss.contracts import TrainOn
from metaloss.core.training.curves import loss_curves
from metaloss.losses.base import phi_of
from metaloss.losses.of_rows.soft_targets import SoftTargets, SoftTargetsConfig
from metaloss.schedules.online import Online
from metaloss.types import Link


def test_the_preset_auto():
    config = compose(["+preset=auto"])
    assert config.loss.options == SoftTargetsConfig()
    assert config.schedule.options == Online(train_on=TrainOn["train+validation"], judge_rows=0.25)
    assert (config.meta_optimizer.options.lr, config.meta_optimizer.options.rows) == (1e-3, 0.25)
    assert config.task.options.label_smoothing == 0.1
    assert config.ema == 0.998


@pytest.mark.parametrize("classes", [2, 10])
def test_the_picture_shows_the_slope_that_trains(classes):
    # s = p / (p + r/C), so that dL/dz = −s (1 − p) and dL/dp = −1 / (p + r/C).
    loss = SoftTargets(SoftTargetsConfig(smoothing=0.0, robustness=0.2 * classes)).double()
    grid, curves = loss_curves(loss, phi_of(loss), classes=classes)
    off = torch.tensor(curves["t=1"]) + (torch.tensor(grid) + 0.2).log()
    assert (off - off.mean()).abs().max() < 0.02
    assert not any(curves["t=0"])


class Rows(LearnedLoss):
    """A family of one's own that defines the loss of rows alone."""

    sees = frozenset({"outputs"})

    def __init__(self, config=None, **given):
        super().__init__(config, **given)
        self.power = torch.nn.Parameter(torch.tensor(2.0))

    def per_row(self, logits, target, row):
        """Return w times cross-entropy or squared error, w a constant of the outputs' size."""
        softmax = self.link is Link.softmax
        seen = row.outputs.softmax(1) if softmax else row.outputs
        factor = (target * seen).sum(1) if softmax else seen[:, 0].sigmoid()
        usual = -(target * logits.log_softmax(1)) if softmax else (logits - target) ** 2
        return factor**self.power * usual.sum(1)


def test_a_family_that_defines_rows_alone_is_drawn_by_its_slope():
    # dL/dp = p² · (−1 / p) = −p, whose integral is (0.005² − p²) / 2.
    loss = Rows().double()
    grid, curves = loss_curves(loss, phi_of(loss))
    p = torch.tensor(grid)
    assert (torch.tensor(curves["t=1"]) - (0.005**2 - p**2) / 2).abs().max() < 2e-3
    assert not any(curves["t=0"])


@pytest.mark.parametrize("task", ["digits", "diabetes"])
def test_a_family_that_defines_rows_alone_is_trained(task, tmp_path):
    words = [f"task={task}", "schedule=online", "steps=2", "start.steps=2", "tracker=[]"]
    link = "softmax" if task == "digits" else "identity"
    run = metaloss.train([*words, f"output={tmp_path}/run"], loss=Rows(link=link))
    assert run.summary.status == "ok"
    assert (tmp_path / "run/curves.jsonl").read_text().count("grid") >= 1
