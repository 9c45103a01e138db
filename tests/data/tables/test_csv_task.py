"""A newcomer's own table."""

import re

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer

import metaloss
from metaloss.data.corruptions import NoiseKind
from metaloss.data.csv_task import CSV
from metaloss.data.files import DataWarning
from metaloss.data.tables.reader import read_csv
from metaloss.data.tables.target import Predict
from metaloss.testing import check_part
from metaloss.types import Link

from .people import people

PARTS = ("train", "valid", "test")
# Of people, the name; that it is said has a test of its own.
pytestmark = pytest.mark.filterwarnings("ignore:left out, because each is constant:UserWarning")


@pytest.mark.parametrize("target", ["buys", "income"])
def test_keeps_its_contract(write, target):
    results = check_part("task", "csv", CSV(path=write(people()), target=target))
    assert [f"{r.name}: {r.message}" for r in results if not r.passed] == []


def test_text_makes_classes(write):
    rows = people()
    source = CSV(path=write(rows), target="buys", drop=["income"])
    task, picked = source.build(0), source.rows(0)
    assert (task.name, task.link, task.outputs) == ("people", Link.softmax, 2)
    about = "buys (no, yes) from the other columns; error: share of wrong classes; left out: income"
    assert task.description == about
    for part in PARTS:
        expected = [int(rows[row]["buys"] == "yes") for row in getattr(picked, part)]
        assert getattr(task, part).targets.tolist() == expected
    # Height, age, where it is missing, and four towns: the one called NA is none that is missing.
    assert task.input_shape == (7,)


def test_numbers_make_a_regression_in_their_own_deviation(write):
    rows = people()
    source = CSV(path=write(rows), target="income")
    task, picked = source.build(0), source.rows(0)
    assert (task.link, task.outputs, task.metric_name) == (Link.identity, 1, "mse")
    values = np.array([float(row["income"]) for row in rows])
    train = values[picked.train]
    for part in PARTS:
        expected = (values[getattr(picked, part)] - train.mean()) / train.std()
        np.testing.assert_allclose(getattr(task, part).targets[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([0, 1], True),
        ([3, 4, 5, 6, 7, 8], True),
        (["1.0", "2.0"], True),
        ([0.5, 1.5], False),
        (list(range(21)), False),
        (list(range(100)), False),
        (["a", "b"], True),
        (["12", "b"], True),
    ],
    ids=str,
)
def test_whether_a_target_is_classes_is_told_by_its_values(write, values, classes):
    rows = [{"x": i % 17, "y": values[i % len(values)]} for i in range(200)]
    path = write(rows)
    task = CSV(path=path, target="y").build(0)
    assert (task.link is Link.softmax) == classes
    if all(isinstance(value, int | float) for value in values):
        for predict in (Predict.classes, Predict.numbers):
            task = CSV(path=path, target="y", predict=predict).build(0)
            assert (task.link is Link.softmax) == (predict is Predict.classes)


def test_classes_that_are_numbers_are_sorted_by_value(write):
    rows = [{"x": i, "y": (10, 9, 2)[i % 3]} for i in range(60)]
    source = CSV(path=write(rows), target="y")
    task = source.build(0)
    picked = source.rows(0)
    assert task.train.targets.tolist() == [(2, 1, 0)[row % 3] for row in picked.train]
    assert "(2, 9, 10)" in task.description


def test_only_training_rows_decide_the_inputs(write):
    rows = people()
    before = CSV(path=write(rows), target="buys", drop=["name"])
    picked, one = before.rows(0), before.build(0)
    for row in [*picked.valid, *picked.test]:
        rows[row] |= {"age": 900, "town": f"nowhere {row}", "income": "-1e9"}
    other = CSV(path=write(rows), target="buys", drop=["name"]).build(0)
    assert torch.equal(one.train.inputs, other.train.inputs)
    assert not torch.equal(one.test.inputs, other.test.inputs)
    assert one.input_shape == other.input_shape


def test_rows_without_a_target_are_left_out_and_counted(write):
    rows = people()
    for row in rows[:7]:
        row["buys"] = ""
    task = CSV(path=write(rows), target="buys").build(0)
    assert sum(len(getattr(task, part).targets) for part in PARTS) == 113
    assert task.description.endswith("; 7 rows without a target left out")


def test_a_class_may_be_called_none(write):
    rows = [{"x": i, "y": ("None", "mild", "NA")[i % 3]} for i in range(60)]
    assert CSV(path=write(rows), target="y").build(0).outputs == 3


def test_a_slip_in_one_cell_makes_no_texts_of_a_column(write):
    rows = [{"x": i, "y": "ab"[i % 2]} for i in range(60)]
    rows[20]["x"] = "about 20"
    path = write(rows)
    message = (
        f"{path}: column 'x' has numbers; 1 of 60 cells are something else and count as missing, "
        "such as 'about 20' in line 22"
    )
    with pytest.warns(DataWarning, match=f"^{re.escape(message)}$"):
        task, picked = (getattr(CSV(path=path, target="y"), do)(0) for do in ("build", "rows"))
    # One more column if the row is a training row: where the number is missing.
    assert task.input_shape == ((2,) if 20 in picked.train else (1,))


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_and_a_spreadsheets_mark_are_understood(tmp_path, write, separator):
    rows = people()
    plain = CSV(path=write(rows), target="income").build(0)
    path = write(rows, "other.csv", delimiter=separator)
    text = "\ufeff" + (tmp_path / "other.csv").read_text("utf-8").replace(".", ",")
    (tmp_path / "other.csv").write_text(text + "\n\n", "utf-8")
    other = CSV(path=path, target="income").build(0)
    for part in PARTS:
        for one, two in zip(getattr(plain, part), getattr(other, part), strict=True):
            assert torch.equal(one, two)


def test_quoted_cells_may_hold_separators_and_line_ends(write, tmp_path):
    rows = people()
    for row in rows:
        row["town"] = f"{row['town']},\n\u2028far; away"
    path = write(rows)
    assert read_csv(path).column("town")[:2] == [row["town"] for row in rows[:2]]


def test_a_column_of_row_numbers_without_a_name_is_left_out(write):
    rows = [{"": i, "x": i % 7, "y": "ab"[i % 2]} for i in range(60)]
    assert CSV(path=write(rows), target="y").build(0).input_shape == (1,)


def test_corruptions_are_those_of_the_other_tasks(write):
    path = write(people(300))
    clean, noisy = (
        CSV(path=path, target="buys", label_noise=noise, noise_kind=NoiseKind.pair).build(0)
        for noise in (0.0, 0.4)
    )
    wrong = (clean.train.targets != noisy.train.targets).sum().item()
    assert wrong == round(0.4 * len(clean.train.targets))
    assert torch.equal(clean.test.targets, noisy.test.targets)
    values = CSV(path=path, target="income", label_noise=0.2, outlier_size=50).build(0)
    assert values.train.targets.abs().max() > 30


@pytest.mark.slow
def test_an_online_loss_needs_no_tuning_on_a_table_with_wrong_labels(tmp_path):
    table = load_breast_cancer()
    lines = [",".join([*(f"x{i}" for i in range(30)), "kind"])]
    lines += [
        ",".join([*map(repr, row.tolist()), table.target_names[kind]])
        for row, kind in zip(table.data, table.target, strict=True)
    ]
    (tmp_path / "cancer.csv").write_text("\n".join(lines))
    words = ["task=csv", f"task.path={tmp_path / 'cancer.csv'}", "task.target=kind"]
    # Traced steps have the same numbers (test_compiled.py), in less time.
    words += ["task.label_noise=0.3", "steps=1000", "compile=trace", "tracker=[]"]
    static = [*words, "schedule=static", "loss=cross_entropy", f"output={tmp_path / 'static'}"]
    online = [*words, "schedule=online", f"output={tmp_path / 'online'}"]
    fixed, learned = (metaloss.train(one).summary.metrics["test/error"] for one in (static, online))
    assert learned < fixed - 0.1


@pytest.mark.parametrize("target", ["buys", "income"])
def test_a_run_learns_without_tuning(write, tmp_path, target):
    path = write(people(400))
    words = [
        "task=csv",
        f"task.path={path}",
        f"task.target={target}",
        "task.drop=[income]" if target == "buys" else "task.drop=[buys]",
        "schedule=static",
        f"loss={'cross_entropy' if target == 'buys' else 'mse'}",
        "steps=300",
        "tracker=[]",
        f"output={tmp_path / 'run'}",
    ]
    run = metaloss.train(words)
    assert run.folder.name == "run"
    name = {"buys": "test/error", "income": "test/mse"}[target]
    assert run.summary.metrics[name] < 0.25
