"""A run goes on with its own rows, model and loss, or says in one line that they are others."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metaloss
from metaloss.core.runs.run import resume_run
from metaloss.core.storage import checkpoint
from metaloss.errors import MetalossError
from metaloss.losses.mlp import MLPLoss, MLPLossConfig
from metaloss.types import Batch

from ..interrupted_runs import interrupting
from ..same_ending import assert_same_ending
from ..small_setups import blobs, fast, net

EVERY = ("log_every=2", "eval_every=4", "checkpoint_every=3", "steps=12")


def with_rows(split, change):
    task = blobs()
    return replace(task, **{split: change(getattr(task, split))})


def moved(rows):
    return Batch(rows.inputs + 0.1, rows.targets)


def relabelled(rows):
    return Batch(rows.inputs, (rows.targets + 1) % 3)


def shorter(rows):
    return Batch(rows.inputs[:-1], rows.targets[:-1])


def own_loss(**options):
    torch.manual_seed(5)
    return MLPLoss(MLPLossConfig(hidden=[6], **options))


def stop(folder, *words, at=20, task=None, model=None, **given):
    """Leave a run that was stopped in training."""
    task = replace(task or blobs(), task_loss=interrupting(at=at).task_loss)
    with pytest.raises(KeyboardInterrupt):
        metaloss.train(
            fast("schedule=online", f"output={folder}", *EVERY, *words, own_loss="loss" in given),
            task=task,
            model=model or net(),
            **given,
        )


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped") / "run"
    stop(folder, loss=own_loss())
    assert list((folder / "checkpoints").iterdir())
    return folder


def resume(folder, **given):
    return resume_run(folder, **{"task": blobs(), "model": net(), "loss": own_loss(), **given})


OTHERS = {
    "training inputs": ({"task": with_rows("train", moved)}, "the training rows are not those"),
    "validation rows": ({"task": with_rows("valid", relabelled)}, "the validation rows are not"),
    "test labels": ({"task": with_rows("test", relabelled)}, "the test rows are not those"),
    "fewer rows": ({"task": with_rows("train", shorter)}, r"\(64 training rows then, 63 now\)"),
    "task loss": (
        {"task": replace(blobs(), task_loss=lambda z, y: 2 * F.cross_entropy(z, y))},
        "the task is not the one .*: its task loss on probes differs",
    ),
    "metric": ({"task": replace(blobs(), metric_name="accuracy")}, "its metric differs"),
    "wider model": ({"model": nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))}, "0.we"),
    "activation": (
        {"model": nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))},
        r"the model is not the one .*: its part 1 differs \(Tanh\(\) then, ReLU\(\) now\)",
    ),
    "frozen layer": (
        {"model": nn.Sequential(nn.Linear(4, 5).requires_grad_(False), nn.Tanh(), nn.Linear(5, 3))},
        r"its 0.weight differs \(\(5, 4\) float32 then, \(5, 4\) float32 frozen now\)",
    ),
    "wider loss": ({"loss": MLPLoss(MLPLossConfig(hidden=[7]))}, "the loss is not the one"),
    "loss options": (
        {"loss": own_loss(beta=5.0)},
        "the loss is not the one that the run was made with: its options differs",
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_not_the_runs_own_is_refused_and_nothing_changes(stopped, what):
    given, message = OTHERS[what]
    before = {path: path.read_bytes() for path in stopped.rglob("*.*")}
    with pytest.raises(MetalossError, match=message):
        resume(stopped, **given)
    assert {path: path.read_bytes() for path in stopped.rglob("*.*")} == before


def test_rows_that_differ_by_rounding_go_on_and_it_is_said(tmp_path):
    stop(tmp_path / "run")
    rounded = with_rows("train", lambda rows: Batch(rows.inputs * (1 + 1e-7), rows.targets))
    assert not torch.equal(rounded.train.inputs, blobs().train.inputs)
    run = resume_run(tmp_path / "run", task=rounded, model=net())
    (warning,) = run.summary.warnings
    assert "the training rows differ in rounding" in warning
    assert [row["warning"] for row in run.journal() if "warning" in row] == [warning]


def test_a_run_without_digests_goes_on_and_it_is_said(tmp_path):
    words = ("schedule=online", *EVERY)
    metaloss.train(fast(*words, f"output={tmp_path / 'whole'}"), task=blobs(), model=net())
    stop(tmp_path / "run")
    newest = max((tmp_path / "run/checkpoints").iterdir())
    content, _ = newest_of(newest.parent)
    for name in ("made_of", "sketches", "fixed", "warnings"):
        del content[name]
    del content["version"]
    checkpoint.save(newest.parent, int(newest.stem), content)
    (tmp_path / "run/made_of.json").unlink()
    run = resume_run(tmp_path / "run", task=blobs(), model=net())
    (warning,) = run.summary.warnings
    assert "does not say which rows, model and loss it was made with" in warning
    assert_same_ending(tmp_path / "run", tmp_path / "whole")


def newest_of(folder):
    return checkpoint.load_newest(folder, torch.device("cpu"))


def frozen_net(seed):
    model = net(seed=seed)
    model[0].requires_grad_(False)
    return model


@pytest.mark.parametrize("phase", ["offline", "train"])
def test_frozen_and_first_weights_are_the_runs_whatever_object_is_given(tmp_path, phase):
    words = fast("schedule=online", "schedule.offline_steps=6", *EVERY)
    metaloss.train([*words, f"output={tmp_path / 'whole'}"], task=blobs(), model=frozen_net(1))
    stop(
        tmp_path / "run",
        "schedule.offline_steps=6",
        at=5 if phase == "offline" else 24,
        model=frozen_net(1),
    )
    content, _ = newest_of(tmp_path / "run/checkpoints")
    assert bool(content["progress"][1]) == (phase == "train")
    other = frozen_net(2)
    given = [value.clone() for value in other.parameters()]
    run = resume_run(tmp_path / "run", task=blobs(), model=other)
    assert_same_ending(tmp_path / "run", tmp_path / "whole")
    assert torch.equal(run.model[0].weight, frozen_net(1)[0].weight)
    for value, before in zip(other.parameters(), given, strict=True):
        assert torch.equal(value, before), "the object that was given is not changed"


def test_a_run_without_a_checkpoint_begins_anew_with_its_own_weights_only(tmp_path):
    stop(tmp_path / "run", "start.steps=250", at=1)
    assert not (tmp_path / "run/checkpoints").exists()
    with pytest.raises(MetalossError, match="the model begins with other numbers than the run did"):
        resume_run(tmp_path / "run", task=blobs(), model=net(seed=3))
    with pytest.raises(MetalossError, match="the test rows are not those"):
        resume_run(tmp_path / "run", task=with_rows("test", moved), model=net())
    assert resume_run(tmp_path / "run", task=blobs(), model=net()).summary.status == "ok"


def test_the_digests_are_in_the_summary_and_the_folder(tmp_path):
    run = metaloss.train(
        fast("schedule=static", "loss=mse", "steps=2", f"output={tmp_path}", "task=digits"),
    )
    made = json.loads((tmp_path / "made_of.json").read_text())
    assert run.summary.rows == made["rows"]
    assert {len(one) for one in made["rows"].values()} == {64}
    assert run.summary.warnings == []


TABLE = "\n".join(["x,y", *(f"{i % 7}.{i % 10},{'ab'[i % 2]}" for i in range(60))])


def test_a_path_holds_wherever_the_run_goes_on(tmp_path, monkeypatch):
    for folder, text in (("one", TABLE), ("two", TABLE.replace("3.", "8."))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "table.csv").write_text(text)
    monkeypatch.chdir(tmp_path / "one")
    words = ("task=csv", "task.path=table.csv", "task.target=y", "schedule=static", "loss=gce")
    metaloss.train(fast(*words, "steps=4", f"output={tmp_path / 'run'}"))
    assert f"path: {tmp_path / 'one/table.csv'}" in (tmp_path / "run/config.yaml").read_text()
    monkeypatch.chdir(tmp_path / "two")
    assert resume_run(tmp_path / "run", steps=8).summary.steps == 8
    (tmp_path / "one/table.csv").write_text(TABLE.replace("a", "c").replace("b", "a"))
    with pytest.raises(MetalossError, match="rows are not those that the run was made with"):
        resume_run(tmp_path / "run", steps=12)


def test_another_content_of_a_plugin_is_said(tmp_path):
    words = fast("task=digits", "schedule=static", "loss=mse", "steps=2", f"output={tmp_path}")
    plugins = {str(tmp_path / "mine.py"): "a" * 64}
    run = metaloss.core.runs.run.train_run(metaloss.compose.compose(words), plugins=plugins)
    assert run.summary.warnings == []
    same = resume_run(tmp_path, steps=4, plugins=plugins)
    assert same.summary.warnings == []
    other = resume_run(tmp_path, steps=6, plugins={"/elsewhere/mine.py": "b" * 64})
    (warning,) = other.summary.warnings
    assert "the plugin /elsewhere/mine.py has changed since the run began" in warning
    assert resume_run(tmp_path, steps=8).summary.warnings == [warning], "it stays said"
