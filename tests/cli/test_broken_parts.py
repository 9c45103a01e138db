"""Parts of a plugin that raise in the middle of a run: trackers are dropped, others are named."""

import json

import pytest

BROKEN = '''
from dataclasses import dataclass, field

from torch import nn

from metaloss import register
from metaloss.contracts import Tracker
from metaloss.inner.optimizers.sgd import SGD
from metaloss.losses import LearnedLoss
from metaloss.schedules.online import Online
from metaloss.starts.keep import Keep
import torch


def fail_late(counted, after):
    """Raise at a call that is late."""
    counted.append(1)
    if len(counted) > after:
        raise ValueError("out of luck\\nsecond line")


@dataclass(frozen=True, kw_only=True)
class FailingConfig:
    """Options of ``failing``."""

    at: str = field(default="init", metadata={"help": "where it fails"})


@register("tracker", "failing")
class FailingTracker(Tracker):
    Config = FailingConfig

    def __init__(self, config):
        self.at = config.at
        self.fail("init")

    def fail(self, place):
        if place == self.at:
            raise ValueError("out of luck\\nsecond line")

    def handle(self, event):
        self.fail(type(event).__name__)

    def close(self):
        self.fail("close")


@dataclass(frozen=True, kw_only=True)
class AfterConfig:
    """Options of parts that fail late."""

    after: int = field(default=30, metadata={"help": "calls that do well"})


@register("loss", "failing")
class FailingLoss(LearnedLoss):
    Config = AfterConfig

    def __init__(self, config=None, *, link="softmax"):
        super().__init__(config or AfterConfig(), link=link)
        self.scale = nn.Parameter(torch.ones(()))
        self.counted = []

    def pointwise(self, prediction, target):
        fail_late(self.counted, self.config.after)
        return self.scale * (prediction - target) ** 2


class Middle(nn.Module):
    def __init__(self, after):
        super().__init__()
        self.after = after

    def forward(self, x):
        fail_late(COUNTED, self.after)
        return x


COUNTED = []


@register("model", "failing")
class FailingModel(nn.Module):
    Config = AfterConfig

    def __init__(self, config, input_shape, outputs):
        super().__init__()
        width = torch.Size(input_shape).numel()
        self.body = nn.Sequential(nn.Flatten(), Middle(config.after), nn.Linear(width, outputs))

    def forward(self, x):
        return self.body(x)
'''
SMALL = (
    *("task=digits", "task.subset=60", "batch_size=8", "meta_batch_size=8", "steps=40"),
    *("log_every=10", "eval_every=20", "compile=off", "device=cpu", "output=run"),
)


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(BROKEN)
    return path


EVENTS = ("RunStarted", "Logged", "RunFinished")


@pytest.mark.parametrize("at", [*EVENTS, "close"])
def test_a_tracker_that_fails_anywhere_leaves_the_run_as_it_is(cli, broken, tmp_path, at):
    words = ("model=linear", "loss=cross_entropy", "schedule=static", *SMALL)
    status, _, told = cli(
        *("train", "--plugin", broken, "tracker=[failing]", f"tracker.failing.at={at}", *words)
    )
    assert status == 0
    lines = [line for line in told.splitlines() if "tracker 'failing'" in line]
    assert len(lines) == 1
    assert "ValueError: out of luck" in lines[0]
    assert "Traceback" not in told
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "ok"


def test_a_tracker_that_cannot_be_made_is_an_error_of_one_line(cli, broken):
    status, _, told = cli("train", "--plugin", broken, "tracker=[failing]", "model=linear", *SMALL)
    assert status == 2
    assert "Traceback" not in told
    assert "out of luck" in told.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("loss=failing", "model=linear", "start=keep"), r"the loss (FailingLoss) failed:"),
        (
            ("model=failing", "model.after=30", "loss=cross_entropy", "schedule=static"),
            "the model (FailingModel), in its part 'body.1' (Middle), failed:",
        ),
    ],
)
def test_a_part_that_raises_in_the_middle_is_named_in_one_line(cli, broken, tmp_path, words, named):
    status, _, told = cli("train", "--plugin", broken, "tracker=[]", *words, *SMALL)
    assert status == 2
    assert "Traceback" not in told
    (line,) = [line for line in told.splitlines() if "out of luck" in line]
    assert named in line
    assert "ValueError: out of luck second line" in line
    # It had begun: the journal has rows.
    assert (tmp_path / "run" / "journal.jsonl").read_text().count("\n") >= 1
