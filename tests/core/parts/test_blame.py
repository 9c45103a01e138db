"""What fails in a user's own code is one line that names it; a bug of ours stays a traceback."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import metaloss
from metaloss.cli.main import main
from metaloss.core.parts.blame import told
from metaloss.core.steps import advance
from metaloss.errors import MetalossError
from metaloss.losses.base import LearnedLoss

from ..small_setups import blobs, fast, net


class Failing(nn.Module):
    """Fails in training, after so many forward passes."""

    def __init__(self, error, at=0):
        super().__init__()
        self.error, self.at, self.calls = error, at, []

    def forward(self, x):
        if self.training:
            self.calls.append(1)
            if len(self.calls) > self.at:
                raise self.error
        return x


class OwnLoss(LearnedLoss):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def pointwise(self, prediction, target):
        raise KeyError("no such\nthing")


WORDS = fast("schedule=static", "loss=gce", "steps=6")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("a\nb"),
        TypeError("a b\nException raised from f at g.h:79\nframe #0: h"),
        KeyError("a b"),
        ZeroDivisionError("a b"),
    ],
)
def test_a_part_of_the_model_is_named(tmp_path, error):
    model = net(Failing(error))
    with pytest.raises(MetalossError) as caught:
        metaloss.train([*WORDS, f"output={tmp_path}"], task=blobs(), model=model)
    message = str(caught.value)
    assert message.startswith("the model (Sequential), in its part '1' (Failing), failed: ")
    assert re.search(rf"{type(error).__name__}: '?a b'? \(METALOSS", message)
    assert caught.value.__cause__ is not None


def test_the_loss_is_named(tmp_path):
    with pytest.raises(MetalossError, match=r"the loss \(OwnLoss\) failed: KeyError: 'no such"):
        metaloss.train(
            fast("schedule=online", "start=keep", f"output={tmp_path}", own_loss=True),
            task=blobs(),
            model=net(),
            loss=OwnLoss(),
        )


def test_a_function_of_the_user_is_named_by_its_line(tmp_path):
    def metric(outputs, targets):
        return {}["accuracy"]

    task = replace(blobs(), metric=metric)
    with pytest.raises(MetalossError, match=r"test_blame.py, line \d+, in metric\(\), failed: Key"):
        metaloss.train([*WORDS, f"output={tmp_path}"], task=task, model=net())


def test_a_bug_of_ours_stays_what_it_is():
    # As if a line of ours were wrong.
    text = "with told():\n    {}['ours']"
    with pytest.raises(KeyError, match="ours"):
        exec(compile(text, advance.__file__, "exec"), {"told": told})


def test_the_traceback_is_shown_to_who_asks(tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise MetalossError("no") from KeyError("the cause")

    monkeypatch.setattr("metaloss.core.runs.run.train_runs", fail)
    assert main(["train"]) == 2
    assert capsys.readouterr().err == "metaloss: error: no\n"
    monkeypatch.setenv("METALOSS_DEBUG", "1")
    assert main(["train"]) == 2
    said = capsys.readouterr().err
    assert "KeyError: 'the cause'" in said
    assert said.endswith("metaloss: error: no\n")


@pytest.mark.parametrize(
    ("words", "never"),
    [
        (("schedule.unroll=9", "steps=8"), True),
        (("schedule.unroll=8", "steps=8"), False),
        (("schedule.unroll=8", "steps=8", "schedule.meta_batch=next"), True),
        (("schedule.unroll=4", "schedule.period=9", "steps=8"), True),
        (("schedule.freeze_after=0", "steps=8"), True),
        (("schedule.freeze_after=0", "schedule.offline_steps=2", "steps=8"), False),
    ],
    ids=str,
)
def test_a_loss_that_would_never_move_is_refused(tmp_path, words, never):
    words = fast("schedule=online", *words, f"output={tmp_path / 'run'}")
    if never:
        with pytest.raises(
            MetalossError, match=r"steps=8: the loss would never be updated .*unroll="
        ):
            metaloss.train(words, task=blobs(), model=net())
        assert not (tmp_path / "run").exists()
    else:
        run = metaloss.train(words, task=blobs(), model=net())
        assert any("meta/gradient_norm" in row for row in run.journal())
