"""Rows, parts and options that make no task are refused in words."""

import math

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    SequentialSampler,
    WeightedRandomSampler,
)

from metaloss.data import TaskOptions, task_from_data
from metaloss.errors import MetalossError

from .small_rows import Pairs, Stream, accuracy, rows

# ------------------------------------------------------------------------------------------ errors

X, Y = rows()
NAN = X.clone()
NAN[3, 1] = math.nan
BAD_ROWS = {
    "lengths": ((X, Y[:-1]), "train: 60 rows of inputs and 59 of targets; expected equal numbers"),
    "nan": ((NAN, Y), "train: inputs hold NaN or infinity; expected finite numbers"),
    "nan_target": (
        (X, NAN[:, 1]),
        "train: targets hold NaN or infinity; expected finite numbers",
    ),
    "empty": ((X[:0], Y[:0]), "train is empty: expected at least one row"),
    "empty_dataset": (Pairs(X[:0], Y[:0]), "train is empty: expected at least one row"),
    "empty_stream": (Stream([]), "train is empty: expected at least one row"),
    "bytes": (
        (X.to(torch.uint8), Y),
        "train: inputs are torch.uint8; expected floating-point numbers (for pixels: inputs / "
        "255), or int64 for tokens",
    ),
    "one_class": (
        (X, Y * 0),
        "train: all targets are one class; expected two or more, or the option outputs=C",
    ),
    "all_ignored": (
        (X, Y * 0 - 100),
        "train: all targets are one class; expected two or more, or the option outputs=C",
    ),
    "negative": (
        (X, Y - 1),
        "train: class -1; expected 0 to 1 (outputs=2), or ignore_index=-100 for targets to ignore",
    ),
    "three": ((X, Y, Y), "train: got 3 values; expected pairs of (inputs, targets)"),
    "dicts": (
        Stream([{"x": 1.0}]),
        "train: got a dictionary of x; expected an entry 'labels' or 'label' with the targets, or "
        "pairs of (inputs, targets)",
    ),
    "lists": ((X.tolist(), Y), "train: got a pair with a list; expected tensors or arrays"),
    "scalar": (
        (X, torch.tensor(1)),
        "train: got a tensor without dimensions; expected rows (B, ...)",
    ),
    "string": ("data.csv", "train: got str; expected a pair of tensors, a Dataset or a DataLoader"),
    "repeated": (
        DataLoader(Pairs(X, Y), sampler=WeightedRandomSampler(torch.ones(60), 60)),
        "train: got a loader that draws rows more than once; expected its dataset",
    ),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_are_refused_in_words(case):
    data, message = BAD_ROWS[case]
    with pytest.raises(MetalossError) as error:
        task_from_data(data)
    assert str(error.value) == message


def test_ragged_rows_are_refused():
    ragged = [(torch.zeros(n), 0) for n in (2, 3)]
    message = "^train: its rows cannot be stacked into tensors of one shape: stack expects"
    with pytest.raises(MetalossError, match=message):
        task_from_data(Stream(ragged))
    batches = BatchSampler(SequentialSampler(ragged), 1, drop_last=False)
    with pytest.raises(MetalossError, match=message):
        task_from_data(DataLoader(ragged, batch_sampler=batches))
    loader = DataLoader([(torch.zeros(5, n), torch.zeros(5)) for n in (2, 3)], batch_size=None)
    with pytest.raises(MetalossError, match=r"^train: its rows cannot be stacked .*: Sizes of"):
        task_from_data(loader)


BAD_PARTS = {
    "class": (
        rows(9, classes=4),
        "valid: class 3; expected 0 to 2 (outputs=3), or ignore_index=-100 for targets to ignore",
    ),
    "input_shape": (
        (torch.zeros(9, 5), rows(9)[1]),
        "valid: inputs of shape (9, 5) and torch.float32; expected (B, 4) and torch.float32, as in "
        "train",
    ),
    "kind": (
        (rows(9)[0], torch.zeros(9)),
        "valid: real targets of shape (9,) with link=softmax; expected class indices (integers) or "
        "soft labels (B, C)",
    ),
    "ignored": (
        (rows(9)[0], torch.full((9,), -100)),
        "valid: every target is -100 (ignored); expected classes",
    ),
    "empty": ((X[:0], Y[:0]), "valid is empty: expected at least one row"),
}


@pytest.mark.parametrize("case", BAD_PARTS)
def test_parts_that_do_not_fit_the_training_rows_are_refused(case):
    data, message = BAD_PARTS[case]
    with pytest.raises(MetalossError) as error:
        task_from_data(rows(), data)
    assert str(error.value) == message
    with pytest.raises(MetalossError) as error:
        task_from_data(rows(), rows(), data)
    assert str(error.value) == message.replace("valid", "test")


BAD_OPTIONS = {
    "link": ({"link": "softplus"}, "link=softplus: expected one of softmax, sigmoid, identity"),
    "outputs": ({"outputs": 0}, "outputs=0: expected a whole number, at least 1"),
    "goal": ({"goal": "low"}, "goal=low: expected min or max"),
    "metric": ({"metric": accuracy}, "metric and metric_name: expected both or neither"),
    "max": (
        {"goal": "max"},
        "goal=max: expected a metric too; lower is better for the built-in ones",
    ),
    "valid": ({"valid_fraction": 1.0}, "valid_fraction=1.0: expected a number > 0 and < 1"),
    "few": (
        {"outputs": 2},
        "train: class 2; expected 0 to 1 (outputs=2), or ignore_index=-100 for targets to ignore",
    ),
    "sigmoid": (
        {"link": "sigmoid"},
        "train: targets from 0 to 2 with link=sigmoid; expected 0 to 1",
    ),
    "columns": (
        {"link": "identity", "outputs": 3},
        "train: targets of shape (60, 1) with outputs=3; expected (B, 3, ...)",
    ),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options_are_refused_in_words(case):
    options, message = BAD_OPTIONS[case]
    with pytest.raises(MetalossError) as error:
        task_from_data(rows(), options=TaskOptions(**options))
    assert str(error.value) == message


def test_soft_labels_must_be_distributions():
    soft = torch.full((60, 3), 0.5)
    with pytest.raises(MetalossError, match=r"^train: soft labels are not a distribution; "):
        task_from_data((X, soft), options=TaskOptions(link="softmax"))


def test_too_few_rows_to_split_is_an_error():
    with pytest.raises(
        MetalossError, match=r"^2 rows, valid_fraction=0.15, .*no rows left for valid"
    ):
        task_from_data(rows(2, classes=2))
