"""``print(task)``: five lines on what a task is made of."""

import pytest
import torch

import metaloss
from metaloss.data.csv_task import CSV
from metaloss.data.images.digits import Digits


@pytest.mark.filterwarnings("ignore:left out, because each is constant:UserWarning")
def test_a_table_says_what_became_of_each_column(tmp_path):
    lines = [
        f"n{row},{'' if row % 7 == 0 else row % 5},{'ab'[row % 2]},2024-01-{row % 20 + 1:02d},"
        f"{'yes' if row % 3 else 'no'}"
        for row in range(100)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["name,age,town,day,buys", *lines]))
    task = CSV(path=str(tmp_path / "t.csv"), target="buys").build(0)
    no, yes = torch.bincount(task.train.targets).tolist()
    assert no + yes == 60
    assert str(task).splitlines() == [
        "t: buys (no, yes) from the other columns; error: share of wrong classes",
        "rows: 60 to train (t.csv), 15 trusted (drawn from t.csv), 25 to test (drawn from t.csv)",
        "inputs: (7) float32: age (numbers, with gaps), town (2 texts), day (date: 3 numbers); "
        "left out: name (a text that differs in every row)",
        f"targets: 2 classes: no ({no}), yes ({yes})",
        "metric: error, lower is better; task loss of the best constant prediction: "
        f"{task.constant_loss:.4g}",
    ]


def test_arrays_and_rows_of_one_s_own_say_their_shape():
    lines = str(Digits().build(0)).splitlines()
    assert lines[1:3] == [
        "rows: 1078 to train, 270 trusted, 449 to test",
        "inputs: (1, 8, 8) float32",
    ]
    assert lines[3].startswith("targets: 10 classes: 0 (108), 1 (109), 2 (106), ")
    few = Digits(meta_fraction=0.2, label_noise=0.5, noisy_validation=True).build(0)
    assert "54 trusted (0.2 of the validation rows; 0.5 of the targets made wrong), 449 to" in str(
        few
    )
    inputs = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    task = metaloss.task_from_data((inputs, inputs[:, :2]))
    assert str(task).splitlines()[:4] == [
        "data: no description",
        "rows: 34 to train, 6 trusted (drawn from the training rows), the same to test",
        "inputs: (3) float32",
        "targets: (2) values, link identity",
    ]


def test_rows_say_which_file_they_are_from_and_what_was_made_wrong(tmp_path):
    lines = [f"{row % 5},{'x' if row % 4 == 0 else ''},{row % 2}" for row in range(60)]
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("\n".join(["age,seen,buys", *lines]))
    files = {"path": str(tmp_path / "a.csv"), "test": str(tmp_path / "b.csv"), "target": "buys"}
    with pytest.warns(UserWarning, match="60 of 60 rows have the same inputs"):
        task = CSV(**files, trusted_column="seen", label_noise=0.2).build(0)
    assert str(task).splitlines()[1] == (
        "rows: 45 to train (a.csv; 0.2 of the targets made wrong), 15 trusted (marked in column "
        "seen), 60 to test (b.csv)"
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["loss=cross_entropy", "schedule=static"], "none, the loss is fixed; the 4 trusted rows"),
        ([], "the 4 trusted rows move the learned loss; they do not train the network"),
        (["schedule.train_on=train+validation"], "move the learned loss; they train the network"),
        (["schedule.meta_batch=next"], "training rows move the learned loss; the 4 trusted rows"),
    ],
)
def test_a_run_says_in_five_lines_what_was_read_before_the_first_step(
    words, expected, tmp_path, capsys
):
    inputs = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    task = metaloss.task_from_data((inputs, torch.arange(30) % 2), name="mine")
    settings = ["steps=2", "start.steps=2", "compile=off", f"output={tmp_path / 'run'}"]
    metaloss.train([*settings, *words], task=task)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:5] == str(task).splitlines()[:4]
    assert lines[5].startswith("meta-batch: ")
    assert expected in lines[5]
    assert "train 0/2" in lines[6] or "start" in lines[6]
