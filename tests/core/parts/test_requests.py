"""Options of a run that decide what it sees and when it ends, and requests that are refused."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import metaloss
from metaloss.core.training.evaluate import outputs_of
from metaloss.errors import MetalossError
from metaloss.inner.model.functional import FunctionalModel
from metaloss.losses import MLPLoss
from metaloss.types import Batch

from ..small_setups import blobs, fast, net, setup, train


def test_a_loss_without_parameters_needs_no_start(tmp_path):
    run = train(tmp_path, "schedule=static", "loss=cross_entropy", "steps=20")
    assert [row["step"] for row in run.journal()] == [0, 10, 20]


def test_early_stopping_ends_at_the_best_validation_moment(tmp_path):
    # Trained on noise, the model only gets worse after a while.
    task = blobs()
    draw = torch.Generator().manual_seed(0)
    noisy = torch.randint(3, (64,), generator=draw)
    task = replace(task, train=Batch(task.train.inputs, noisy))
    words = ("schedule=static", "loss=cross_entropy", "inner.lr=1.0", "steps=2000", "eval_every=5")
    run = train(tmp_path, *words, "schedule.early_stopping=4", task=task)
    evaluated = [row for row in run.journal() if "valid/error" in row]
    errors = [row["valid/error"] for row in evaluated]
    best = errors.index(min(errors))
    assert len(errors) == best + 1 + 4
    assert run.summary.steps == evaluated[-1]["phase_step"] < 2000
    at_best = dict(run.summary.metrics_at_best_validation)
    assert at_best.pop("step") == evaluated[best]["phase_step"]
    assert run.summary.metrics == at_best
    assert at_best["valid/error"] == min(errors) < errors[-1]
    functional = FunctionalModel(run.model)
    outputs = outputs_of(functional, _inner(functional), task.valid.inputs)
    assert task.metric(outputs, task.valid.targets).item() == pytest.approx(min(errors))


def test_a_metric_that_is_not_a_number_at_first_is_not_the_best(tmp_path):
    def spread(outputs, targets):
        """The error; NaN as long as all rows have the same outputs, as a correlation has."""
        varies = outputs.std(0).sum()
        return (outputs.argmax(1) != targets).float().mean() * (varies / varies)

    model = net()
    nn.init.zeros_(model[-1].weight)
    words = ("schedule=static", "loss=cross_entropy", "steps=40", "eval_every=5")
    stops = "schedule.early_stopping=3"
    run = train(tmp_path, *words, stops, task=replace(blobs(), metric=spread), model=model)
    errors = [row["valid/error"] for row in run.journal() if "valid/error" in row]
    assert errors[0] is None
    best = run.summary.metrics_at_best_validation
    assert best["valid/error"] == min(errors[1:])
    assert best["step"] > 0


def _inner(functional):
    from metaloss.types import InnerState

    params, buffers = functional.state()
    return InnerState(params, buffers, None)


@pytest.mark.parametrize("rows", ["train", "validation", "train+validation"])
@pytest.mark.parametrize("schedule", ["static", "online"])
def test_training_sees_the_rows_it_is_told_to(rows, schedule):
    parts = setup(f"schedule={schedule}", f"schedule.train_on={rows}")
    task = parts.task
    allowed = {
        "train": [task.train],
        "validation": [task.valid],
        "train+validation": [task.train, task.valid],
    }[rows]
    wanted = {tuple(row) for batch in allowed for row in batch.inputs.tolist()}
    stream = parts.advance.streams["train"]
    seen = {tuple(row) for k in range(len(wanted) // 8) for row in stream[k].inputs.tolist()}
    assert seen <= wanted
    assert len(seen) == 8 * (len(wanted) // 8)
    hidden = {tuple(row) for row in task.test.inputs.tolist()}
    assert not seen & hidden


def test_trusted_rows_are_joined_to_the_training_rows_only_where_both_train():
    """Their sequences may be longer, and a copy of all rows takes as much memory as they do."""
    task = blobs()
    trusted = Batch(task.valid.inputs.unsqueeze(1).repeat(1, 2, 1), task.valid.targets)
    train = Batch(task.train.inputs.unsqueeze(1), task.train.targets)
    task = replace(task, train=train, valid=trusted, test=trusted)
    model = nn.Sequential(nn.AdaptiveAvgPool2d((1, None)), nn.Flatten(), net())
    parts = setup("schedule=online", task=task, model=model)
    assert parts.advance.streams["train"][0].inputs.shape == (8, 1, 4)
    assert parts.advance.streams["meta/train"][0].inputs.shape == (8, 2, 4)


class Stubborn(nn.Module):
    def __init__(self):
        super().__init__()
        self.own = nn.Parameter(torch.zeros(4, 3))

    def forward(self, x):
        return x @ self.own


class Blind(nn.Module):
    def forward(self, x):
        return x[:, :3]


def _loaded():
    loss = MLPLoss()
    loss.loaded = True
    return loss


@pytest.mark.parametrize(
    ("words", "given", "message"),
    [
        (("schedule=online", "loss=mse"), {}, "loss=mse has no parameters to learn: use schedule="),
        ((), {"loss": MLPLoss(link="identity")}, "the loss has link=identity, the task blobs need"),
        ((), {"loss": _loaded()}, "start=imitate with loss=load: expected start=keep"),
        (
            ("start=random",),
            {"loss": _loaded()},
            "start=random with loss=load: expected start=keep",
        ),
        ((), {"model": net(outputs=4)}, r"returns outputs of shape \(2, 4\); the task blobs needs"),
        ((), {"model": nn.Linear(7, 3)}, r"cannot take inputs of shape \(B, 4\)"),
        ((), {"model": Blind()}, "the model has no parameters to train"),
        (("schedule=offline",), {"model": Stubborn()}, r"Stubborn\) has parameters but no re"),
        (
            ("schedule=online", "compile=on", "meta_optimizer=torchopt"),
            {},
            "compile=on: only the engines mixed and finite_difference can be compiled",
        ),
        (("device=cuda:99",), {}, r"device=cuda:99: this machine has \d+ CUDA devices"),
        (("schedule=load",), {}, "unknown schedule 'load'"),
        (("inner.lr=-1",), {}, "lr=-1"),
        (("loss=load",), {}, "loss=load without loss.path: expected loss.path=FOLDER"),
        (("loss=load", "loss.path=/nowhere"), {}, "cannot read /nowhere/loss.json"),
    ],
)
def test_a_bad_request_is_told_before_anything_is_written(tmp_path, words, given, message):
    given = {"task": blobs(), "model": net(), **given}
    folder = tmp_path / "run"
    with pytest.raises(MetalossError, match=message) as caught:
        metaloss.train([*fast(*words, own_loss="loss" in given), f"output={folder}"], **given)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_not_empty_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine").write_text("precious")
    for folder in (tmp_path, tmp_path / "mine"):
        with pytest.raises(MetalossError, match=r"is not empty: choose another, or .*--resume"):
            train(folder, "steps=1")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine").read_text() == "precious"


def test_an_output_that_cannot_be_written_is_told():
    with pytest.raises(MetalossError, match="output=/proc/nothing cannot be written"):
        train("/proc/nothing", "steps=1")
