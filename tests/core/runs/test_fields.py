"""Inputs of several tensors in runs: the numbers are those of the same columns in one tensor."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

import metaloss
from metaloss.errors import MetalossError
from metaloss.inner.fields import Fields
from metaloss.types import Batch

from ..small_setups import Joined, blobs, files_of, in_halves, net, train


def joined():
    return Joined(*net())


def same(one, other):
    """Compare runs bit by bit: files, metrics."""
    assert files_of(one) == files_of(other)
    assert one.summary.metrics == other.summary.metrics


CASES = {
    "all rows": ["schedule=online", "schedule.unroll=2", "schedule.train_on=train+validation"],
    "traced": ["schedule=online", "compile=trace"],
    "offline": ["schedule=offline", "schedule.offline_steps=2"],
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_is_that_of_one_tensor(tmp_path, case):
    words = ["steps=6", *CASES[case]]
    one = train(tmp_path / "one", *words)
    same(train(tmp_path / "two", *words, task=in_halves(blobs()), model=joined()), one)


def test_a_tuple_is_taken_like_a_dictionary(tmp_path):
    words, task = ["schedule=static", "steps=6"], in_halves(blobs())
    tuples = {
        part: Batch(tuple(rows.inputs.values()), rows.targets)
        for part, rows in (("train", task.train), ("valid", task.valid), ("test", task.test))
    }
    one = train(tmp_path / "one", *words, task=task, model=joined())
    same(train(tmp_path / "two", *words, task=replace(task, **tuples), model=joined()), one)


def test_streamed_rows_and_many_seeds(tmp_path):
    words = ["schedule=online", "steps=6"]
    one = train(tmp_path / "one", *words)
    streamed = replace(in_halves(blobs()), stream=True)
    same(train(tmp_path / "two", *words, task=streamed, model=joined()), one)
    words = ["schedule=online", "steps=6", "seeds=2"]
    ones = train(tmp_path / "ones", *words)
    for task in (in_halves(blobs()), streamed):
        many = train(tmp_path / f"many{task.stream}", *words, task=task, model=joined())
        for own, other in zip(many, ones, strict=True):
            same(own, other)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    words = ["schedule=online", "schedule.meta_batch=next", "checkpoint_every=5"]
    task, model = in_halves(blobs()), joined()
    whole = train(tmp_path / "whole", *words, "steps=10", task=task, model=model)
    train(tmp_path / "part", *words, "steps=5", task=task, model=model)
    part = metaloss.resume_run(tmp_path / "part", steps=10, task=task, model=model)
    same(part, whole)
    other = in_halves(blobs(seed=1))
    with pytest.raises(MetalossError, match="rows are not those that the run was made with"):
        metaloss.resume_run(tmp_path / "part", steps=20, task=other, model=model)


def test_new_rows_are_predicted_in_the_form_of_the_task(tmp_path):
    task = in_halves(blobs())
    run = train(tmp_path / "run", "steps=2", "schedule=online", task=task, model=joined())
    rows = {name: value.numpy() for name, value in task.test.inputs.items()}
    table = metaloss.load_run(tmp_path / "run", model=joined()).predict(rows)
    outputs = run.model(**task.test.inputs)
    assert table["class"].tolist() == [str(one) for one in outputs.argmax(1).tolist()]
    error = run.evaluate((rows, task.test.targets)).metrics["error"]
    assert error == pytest.approx(run.summary.metrics["test/error"])
    with pytest.raises(MetalossError, match="rows: got left; expected tensors or arrays at left, "):
        run.predict({"left": rows["left"]})
    with pytest.raises(MetalossError, match=r"rows\['right'\]: inputs of shape \(24, 3\)"):
        run.predict({"left": rows["left"], "right": rows["left"]})


class Rows(Dataset):
    """A map-style data set of what a function makes of a row number."""

    def __init__(self, make, count):
        self.make, self.count = make, count

    def __len__(self):
        return self.count

    def __getitem__(self, row):
        return self.make(row)


def test_task_from_data_takes_fields():
    inputs = {
        "tokens": torch.arange(40).reshape(20, 2) % 7,
        "x": np.random.default_rng(0).random((20, 3)),
    }
    labels = torch.arange(20) % 2
    task = metaloss.task_from_data((inputs, labels))
    assert isinstance(task.train.inputs, Fields)
    assert task.input_shape == {"tokens": (2,), "x": (3,)}
    assert "inputs: tokens (2) int64, x (3) float32" in str(task)

    def row(number):
        return {name: torch.as_tensor(value[number]) for name, value in inputs.items()}

    def labelled(number):
        return {**row(number), "labels": labels[number]}

    for rows in (
        {**inputs, "labels": labels},
        Rows(lambda number: (row(number), labels[number]), 20),
        Rows(labelled, 20),
        torch.utils.data.DataLoader(Rows(labelled, 20), batch_size=6),
    ):
        other = metaloss.task_from_data(rows)
        for name, value in task.train.inputs.tree.items():
            assert torch.equal(other.train.inputs.tree[name], value)
        assert torch.equal(other.train.targets, task.train.targets)


def test_fields_are_read_lazily(tmp_path):
    task = in_halves(blobs())
    rows = [
        Rows(
            lambda row, part=part: {
                **{name: value[row] for name, value in part.inputs.items()},
                "labels": part.targets[row],
            },
            len(part.targets),
        )
        for part in (task.train, task.valid, task.test)
    ]
    options = metaloss.TaskOptions(lazy=True)
    lazy = metaloss.task_from_data(*rows, name="blobs", options=options)
    assert lazy.input_shape == {"left": (3,), "right": (1,)}
    words = ["schedule=online", "schedule.train_on=train+validation", "steps=6"]
    one = train(tmp_path / "one", *words)
    same(train(tmp_path / "two", *words, task=lazy, model=joined()), one)


def one_tensor():
    metaloss.train(["tracker=[]"], task=in_halves(blobs()))


def two_counts():
    metaloss.task_from_data(({"a": torch.ones(3, 2), "b": torch.ones(4, 2)}, torch.ones(3, 1)))


def no_labels():
    metaloss.task_from_data({"a": torch.ones(3, 2), "b": torch.ones(3)})


def other_fields():
    pairs = [({name: torch.ones(30, 2)}, torch.ones(30, 1)) for name in ("a", "b")]
    metaloss.task_from_data(*pairs)


def bytes_inside():
    inputs = {"a": torch.ones(30, 2, dtype=torch.uint8)}
    metaloss.task_from_data((inputs, torch.ones(30, 1)))


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (one_tensor, r"model=mlp: the task blobs has inputs of several tensors \(left, right\), "),
        (two_counts, "train: inputs with {'a': 3, 'b': 4} rows; expected equal numbers"),
        (no_labels, "train: got a dictionary of a, b; expected an entry 'labels' or 'label'"),
        (other_fields, "valid: inputs b, targets; expected inputs a, targets, as in train"),
        (bytes_inside, "train: inputs are torch.uint8; expected floating-point numbers"),
    ],
)
def test_what_does_not_fit_is_one_line(wrong, line):
    with pytest.raises(MetalossError, match=line) as refusal:
        wrong()
    assert "\n" not in str(refusal.value)
