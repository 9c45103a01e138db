"""Further metrics equal scikit-learn's on the rows that count."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn import metrics as of

import metaloss
from metaloss.data.images.digits import Digits
from metaloss.data.tables.diabetes import Diabetes
from metaloss.data.targets.scores import check_scores, confusion, score_names, scores
from metaloss.errors import MetalossError
from metaloss.types import Link


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_metrics_of_three_classes():
    outputs, targets = drawn(60, 3), torch.arange(60) % 3
    outputs[torch.arange(60), targets] += 1
    found = scores(score_names(Link.softmax), outputs, targets, link=Link.softmax)
    y, guess, p = targets.numpy(), outputs.argmax(1).numpy(), softmax(outputs.numpy(), axis=1)
    assert found == pytest.approx(
        {
            "accuracy": of.accuracy_score(y, guess),
            "balanced_accuracy": of.balanced_accuracy_score(y, guess),
            "f1_macro": of.f1_score(y, guess, average="macro"),
            "f1_weighted": of.f1_score(y, guess, average="weighted"),
            "auroc": of.roc_auc_score(y, p, multi_class="ovr"),
            "average_precision": np.mean(
                [of.average_precision_score(y == c, p[:, c]) for c in range(3)]
            ),
            "log_loss": torch.nn.functional.cross_entropy(outputs, targets).item(),
            "mcc": of.matthews_corrcoef(y, guess),
        },
        abs=1e-12,
    )
    assert 0.4 < found["accuracy"] < 0.95
    assert confusion(outputs, targets).tolist() == of.confusion_matrix(y, guess).tolist()


def test_the_second_of_two_classes_is_the_positive_one():
    outputs, targets = drawn(40, 2), (torch.arange(40) % 5 == 0).long()
    found = scores(["auroc", "average_precision"], outputs, targets, link=Link.softmax)
    p = softmax(outputs.numpy(), axis=1)[:, 1]
    assert found["auroc"] == pytest.approx(of.roc_auc_score(targets, p), abs=1e-12)
    expected = of.average_precision_score(targets, p)
    assert found["average_precision"] == pytest.approx(expected, abs=1e-12)


def test_positions_are_rows_and_ignored_ones_do_not_count():
    outputs, targets = drawn(5, 3, 4), torch.arange(20).reshape(5, 4) % 3
    targets[0] = -100
    kept = targets.reshape(-1) != -100
    flat = outputs.movedim(1, -1).reshape(-1, 3)[kept]
    names = score_names(Link.softmax)
    expected = scores(names, flat, targets.reshape(-1)[kept], link=Link.softmax)
    assert scores(names, outputs, targets, link=Link.softmax) == expected
    assert confusion(outputs, targets).sum() == 16


def test_questions_are_averaged():
    outputs, targets = drawn(30, 2), (drawn(30, 2).flip(0) > 0).double()
    found = scores(score_names(Link.sigmoid), outputs, targets, link=Link.sigmoid)
    y, p = targets.numpy(), outputs.sigmoid().numpy()
    assert found["auroc"] == pytest.approx(of.roc_auc_score(y, p), abs=1e-12)
    expected = of.f1_score(y, outputs.numpy() > 0, average="macro")
    assert found["f1_macro"] == pytest.approx(expected, abs=1e-12)


def test_values_are_in_the_units_of_the_target():
    task = Diabetes(metrics=["rmse", "mae", "r2", "mse"]).build(0)
    assert task.metrics == ("rmse", "mae", "r2")
    outputs = task.test.targets + 0.5
    pipeline = task.pipeline
    found = scores(task.metrics, outputs, task.test.targets, link=task.link, pipeline=pipeline)
    deviation = float(pipeline.scaling.std[0])
    assert deviation > 10
    assert found["rmse"] == pytest.approx(0.5 * deviation, rel=1e-5)
    assert found["mae"] == pytest.approx(0.5 * deviation, rel=1e-5)
    y = pipeline.in_units(task.test.targets).numpy()
    assert found["r2"] == pytest.approx(of.r2_score(y, y + 0.5 * deviation), rel=1e-5)


def test_what_is_not_defined_is_nan():
    outputs, one_class = drawn(6, 3), torch.zeros(6, dtype=torch.int64)
    names = score_names(Link.softmax)
    assert math.isnan(scores(names, outputs, one_class, link=Link.softmax)["auroc"])
    # A class without rows is left out of the mean.
    two = torch.tensor([0, 1, 0, 1, 0, 1])
    p = softmax(outputs.numpy(), axis=1)
    expected = np.mean([of.roc_auc_score(two == c, p[:, c]) for c in (0, 1)])
    found = scores(names, outputs, two, link=Link.softmax)
    assert found["auroc"] == pytest.approx(expected, abs=1e-12)
    outputs[0, 0] = math.nan
    assert all(map(math.isnan, scores(names, outputs, two, link=Link.softmax).values()))


def test_wrong_names_are_refused_with_the_nearest():
    with pytest.raises(MetalossError, match=r"unknown metric 'f1': did you mean"):
        Digits(metrics=["f1"]).build(0)
    with pytest.raises(MetalossError, match=r"'auroc': .*allowed: mae, mse, r2, rmse"):
        Diabetes(metrics=["auroc"]).build(0)
    rows = drawn(20, 2).float(), torch.arange(20) % 2
    options = metaloss.TaskOptions(metrics=["f1_macr"])
    with pytest.raises(MetalossError, match="did you mean 'f1_macro'"):
        metaloss.task_from_data(rows, options=options)
    assert check_scores(["mcc", "mcc"], Link.softmax, "error") == ("mcc",)
