"""A run's folder evaluates rows: with the numbers that the run itself had, to the last bit."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import metaloss
from metaloss.core.runs.load import load_run
from metaloss.data.inputs import GivenInputs
from metaloss.data.pipeline import FittedPipeline
from metaloss.errors import MetalossError
from metaloss.types import Link

WORDS = ["schedule=static", "steps=40", "tracker=[]", "compile=off", "model.hidden=[8]"]
FURTHER = {"classes": ["f1_macro", "auroc", "log_loss"], "numbers": ["rmse", "r2"]}


def written(path, count, seed, target):
    draw = np.random.default_rng(seed)
    x, town = draw.normal(size=count), draw.choice(["Rome", "Oslo"], count)
    value = 3 * x + 2 * (town == "Oslo") + draw.normal(size=count) * 0.3
    shown = np.where(value > 2, "high", np.where(value > 0, "mid", "low"))
    y = shown if target == "classes" else np.round(value, 4)
    lines = [f"{a},{b},{c}" for a, b, c in zip(x, town, y, strict=True)]
    # The target of one row is missing.
    path.write_text("\n".join(["x,town,y", *lines, "0.5,Rome,"]))
    return str(path)


@pytest.fixture(scope="module", params=["classes", "numbers"])
def trained(request, tmp_path_factory):
    folder, target = tmp_path_factory.mktemp("run"), request.param
    train = written(folder / "train.csv", 120, 0, target)
    test = written(folder / "test.csv", 70, 1, target)
    words = ["task=csv", f"task.path={train}", f"task.test={test}", "task.target=y"]
    words += [f"task.metrics=[{','.join(FURTHER[target])}]", "eval_every=10"]
    words += [f"loss={'cross_entropy' if target == 'classes' else 'mse'}", "inner.lr=0.1"]
    return metaloss.train([*words, *WORDS, f"output={folder / 'run'}"]), test, target


def own(run):
    metrics = run.summary.metrics
    return {name[5:]: value for name, value in metrics.items() if name.startswith("test/")}


@pytest.mark.filterwarnings("ignore:.*rows without a target left out:UserWarning")
def test_the_test_file_gives_the_run_s_own_numbers_to_the_last_bit(trained):
    run, test, target = trained
    first = "error" if target == "classes" else "mse"
    assert [*own(run)] == [first, *FURTHER[target]]
    assert all(np.isfinite([*own(run).values()]))
    again = load_run(run.folder)
    for source in (None, test):
        found = again.evaluate(source)
        assert found.rows == 70
        assert found.metrics == own(run)
    assert again.evaluate(test, metrics=[FURTHER[target][0]]).metrics == {
        name: own(run)[name] for name in (first, FURTHER[target][0])
    }


def test_rows_and_targets_in_memory_are_those_of_the_file(trained):
    run, test, target = trained
    frame = pd.read_csv(test).dropna()
    found = run.evaluate((frame, frame["y"].to_numpy()))
    assert found.metrics == own(run)
    if target == "classes":
        assert found.classes == ["high", "low", "mid"]
        counts = frame["y"].value_counts()
        assert found.confusion.sum(axis=1).tolist() == [counts[name] for name in found.classes]
        assert 1 - np.trace(found.confusion) / 70 == pytest.approx(found.metrics["error"])


def test_rows_that_cannot_be_evaluated_are_refused_in_one_line(trained, tmp_path):
    run, _, target = trained
    new = tmp_path / "new.csv"
    new.write_text("x,town\n1,Rome\n")
    with pytest.raises(MetalossError, match=r"new.csv: no column y; expected the target"):
        run.evaluate(new)
    new.write_text("x,town,y\n1,Rome,hihg\n")
    expected = "unknown class 'hihg': did you mean 'high'" if target == "classes" else "a number"
    with pytest.raises(MetalossError, match=expected):
        run.evaluate(new)
    with pytest.raises(MetalossError, match="unknown metric"):
        run.evaluate(metrics=["auc"])


def test_test_rows_that_have_changed_are_refused(trained):
    run, test, _ = trained
    content = Path(test).read_text()
    Path(test).write_text(content.replace("Rome", "Oslo"))
    try:
        with pytest.raises(MetalossError, match="have changed since the run"):
            run.evaluate()
    finally:
        Path(test).write_text(content)


def test_best_weights_are_those_of_the_best_validation(tmp_path):
    # A large rate, so that the last evaluation is not the best one.
    words = ["task.subset=60", "inner.lr=0.3", "steps=60", "eval_every=5", "loss=cross_entropy"]
    words += ["task.label_noise=0.4"]
    run = metaloss.train([*WORDS, *words, f"output={tmp_path / 'run'}"])
    at_best = run.summary.metrics_at_best_validation
    assert at_best["step"] < 60
    assert at_best["test/error"] != run.summary.metrics["test/error"]
    best = load_run(run.folder, best=True)
    assert best.evaluate(metrics=["mcc"]).metrics["error"] == at_best["test/error"]
    assert run.evaluate().metrics["error"] == run.summary.metrics["test/error"]
    (run.folder / "model_best.safetensors").unlink()
    with pytest.raises(MetalossError, match=r"no model_best.safetensors; .* an older version"):
        load_run(run.folder, best=True)


def test_best_weights_are_the_same_after_a_resumed_run(tmp_path):
    words = [*WORDS, "task.subset=60", "task.label_noise=0.4", "inner.lr=0.3", "eval_every=5"]
    words += ["loss=cross_entropy"]
    whole = metaloss.train([*words, "steps=60", f"output={tmp_path / 'whole'}"])
    halves = metaloss.train([*words, "steps=30", f"output={tmp_path / 'halves'}"])
    halves = metaloss.resume_run(halves.folder, steps=60)
    one, other = (load_run(run.folder, best=True).model for run in (whole, halves))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert (tmp_path / "halves" / "model_best.safetensors").exists()


def test_without_better_weights_the_last_ones_are_the_best(tmp_path):
    words = ["task.subset=200", "steps=1", "eval_every=1", "inner.lr=0.5", "loss=cross_entropy"]
    run = metaloss.train([*WORDS, *words, f"output={tmp_path / 'run'}"])
    assert run.summary.metrics_at_best_validation["step"] == 1
    assert not (run.folder / "model_best.safetensors").exists()
    best = load_run(run.folder, best=True)
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, best.model.state_dict()[name])


def test_a_task_of_one_s_own_is_evaluated_on_rows_in_memory(tmp_path):
    inputs = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    rows = inputs, (inputs[:, 0] > 0).long()
    options = metaloss.TaskOptions(metrics=["balanced_accuracy"])
    task = metaloss.task_from_data(rows, test=rows, options=options)
    words = [*WORDS, "loss=cross_entropy", f"output={tmp_path / 'run'}"]
    run = metaloss.train(words, task=task)
    found = run.evaluate(rows, metrics=["balanced_accuracy"])
    assert found.metrics == own(run)
    with pytest.raises(MetalossError, match="the run's task is your own object"):
        run.evaluate()
    content = json.loads((run.folder / "summary.json").read_text())
    assert [*content["metrics"]][:2] == ["valid/error", "test/error"]


@pytest.mark.parametrize("part", ["model", "loss"])
def test_a_run_with_a_model_or_a_loss_of_one_s_own_reads_its_rows_again(part, tmp_path):
    own_part = {
        "model": nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
        "loss": type("Mine", (metaloss.MLPLoss,), {})(),
    }[part]
    words = [word for word in WORDS if not word.startswith(part)]
    words += ["steps=2", "start.steps=2", "task.subset=60", f"output={tmp_path / 'run'}"]
    run = metaloss.train(words, **{part: own_part})
    assert run.evaluate(metrics=["mcc"]).metrics["error"] == run.summary.metrics["test/error"]
    assert len(run.suspects()) == 60


def test_classes_that_are_called_by_numbers_are_names_in_memory_too():
    pipeline = FittedPipeline(
        inputs=GivenInputs(),
        link=Link.softmax,
        outputs=3,
        input_shape=(2,),
        classes=["1", "2", "10"],
    )
    for given in (["1", "10", "2"], [1, 10, 2], np.array([1.0, 10.0, 2.0])):
        assert pipeline.targets(given).tolist() == [0, 2, 1]
    for wrong in ([1, 3], [0, 1], [1.0, float("nan")], [1.5, 2.0]):
        with pytest.raises(MetalossError, match="targets: unknown class"):
            pipeline.targets(wrong)
    plain = replace(pipeline, classes=["cat", "cow", "dog"])
    assert plain.targets(np.array([0.0, 2.0])).tolist() == [0, 2]
    for wrong in ([0.5, 1.0], [0.0, float("nan")]):
        with pytest.raises(MetalossError, match="targets: fractions or gaps"):
            plain.targets(wrong)


def test_values_that_are_no_finite_numbers_are_refused():
    pipeline = FittedPipeline(inputs=GivenInputs(), link=Link.identity, outputs=1, input_shape=(2,))
    with pytest.raises(MetalossError, match="targets: row 2 has no finite target"):
        pipeline.targets([1.0, float("nan")])
    with pytest.raises(MetalossError, match="could not convert string to float"):
        pipeline.targets(["one"])
