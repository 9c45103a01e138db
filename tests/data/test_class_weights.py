"""Weights of classes: scikit-learn's numbers, torch's mean, one line for what makes no sense."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from metaloss import TaskOptions, task_from_data
from metaloss.compose import compose, read_file, to_yaml
from metaloss.data.images.digits import Digits
from metaloss.data.targets.class_weights import class_weights
from metaloss.data.targets.constant import fitted_constant
from metaloss.errors import MetalossError


def test_balanced_weights_are_those_of_scikit_learn():
    labels = torch.tensor([0] * 7 + [1] * 2 + [3] * 5)
    known = np.array([0, 1, 3])
    expected = compute_class_weight("balanced", classes=known, y=labels.numpy())
    found = class_weights("balanced", labels, 4)
    assert [found[c] for c in known] == pytest.approx(expected.tolist(), rel=1e-12)
    assert found[2] == pytest.approx(14 / 3), "as if it had one row"
    ignored = torch.cat([labels, torch.full((9,), -100)])
    assert class_weights("balanced", ignored, 4) == found
    for given in (np.array(found), torch.tensor(found, dtype=torch.float64)):
        assert class_weights(given, labels, 4) == found


def test_the_training_labels_of_a_task_decide_and_every_source_takes_words(tmp_path):
    config = compose(["task=digits", "task.imbalance=10", "task.class_weights=balanced"])
    task = config.task.options.build(0)
    assert task.class_weights == class_weights("balanced", task.train.targets, 10)
    words = ["task=csv", "task.path=pets.csv", "task.target=kind", "task.class_weights={dog: 5}"]
    (tmp_path / "config.yaml").write_text(to_yaml(compose(words)))
    assert read_file(tmp_path / "config.yaml")["task"]["class_weights"] == {"dog": 5}
    lines = [f"{i},{'cat' if i % 3 else 'dog'}" for i in range(60)]
    (tmp_path / "pets.csv").write_text("\n".join(["weight,kind", *lines]))
    words[1] = f"task.path={tmp_path / 'pets.csv'}"
    assert compose(words).task.options.build(0).class_weights == (1.0, 5.0)


def test_the_task_loss_and_its_constant_are_weighted_and_the_metric_is_not():
    rows = torch.randn(90, 3), torch.tensor([0] * 60 + [1] * 20 + [2] * 10)
    weights = [1.0, 2.0, 0.0]
    task = task_from_data(rows, test=rows, options=TaskOptions(class_weights=weights))
    plain = task_from_data(rows, test=rows)
    outputs, targets = torch.randn(len(task.test.targets), 3), task.test.targets
    torch.testing.assert_close(
        task.weighted_loss(outputs, targets),
        F.cross_entropy(outputs, targets, weight=torch.tensor(weights)),
    )
    assert task.metric(outputs, targets) == plain.metric(outputs, targets)
    wide = torch.tensor(weights, dtype=torch.float64)
    of_rows = partial(F.cross_entropy, weight=wide)
    lowest, _ = fitted_constant(task.train.targets, 3, of_rows)
    assert task.constant_loss == pytest.approx(lowest, rel=1e-5)


ROWS = torch.randn(20, 2), torch.arange(20) % 2


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (ROWS, {"class_weights": "blanced"}, "class_weights=blanced: expected balanced"),
        (ROWS, {"class_weights": [1, -1]}, "-1: expected balanced, a list with a number ≥ 0"),
        (ROWS, {"class_weights": [1, float("inf")]}, "inf: expected"),
        (ROWS, {"class_weights": [0, 0]}, "all are 0; expected one above 0"),
        (ROWS, {"class_weights": {"0": 0, "1": 0}}, "all are 0; expected one above 0"),
        (ROWS, {"class_weights": [1, 2, 3]}, "3 numbers for 2 classes"),
        (ROWS, {"class_weights": {"one": 3}}, "unknown class in class_weights 'one'"),
        (ROWS, {"class_weights": [1, 2], "task_loss": F.cross_entropy}, "a task_loss of your own"),
        ((ROWS[0], torch.randn(20)), {"class_weights": [1]}, "link=identity: expected a class"),
        ((ROWS[0], torch.eye(2)[ROWS[1]]), {"class_weights": [1, 2], "link": "softmax"}, "a class"),
        (
            (ROWS[0], torch.ones(20, 3).long()),
            {"class_weights": [1, 2], "outputs": 2},
            r"\(17, 3\)",
        ),
    ],
)
def test_weights_that_make_no_sense(rows, options, said):
    with pytest.raises(MetalossError, match=said):
        task_from_data(rows, test=rows, options=TaskOptions(**options))


def test_a_source_without_weights_has_none():
    assert Digits().build(0).class_weights is None
