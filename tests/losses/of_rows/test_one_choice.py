"""The preset that chooses a loss of rows for tasks with trusted rows."""

from metaloss.compose import compose
from metaloss.contracts import TrainOn
from metaloss.losses.of_rows.soft_targets import SoftTargetsConfig
from metaloss.schedules.online import Online


def test_the_preset_auto():
    config = compose(["+preset=auto"])
    assert config.loss.options == SoftTargetsConfig()
    assert config.schedule.options == Online(train_on=TrainOn["train+validation"], judge_rows=0.25)
    assert (config.meta_optimizer.options.lr, config.meta_optimizer.options.rows) == (1e-3, 0.25)
    assert config.task.options.label_smoothing == 0.1
    assert config.ema == 0.998
