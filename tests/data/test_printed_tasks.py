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
        "rows: 60 to train, 15 trusted, 25 to test",
        "inputs: (5) float32: age (numbers, with gaps), town (2 texts), day (dates); "
        "left out: name",
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
    inputs = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    task = metaloss.task_from_data((inputs, inputs[:, :2]))
    assert str(task).splitlines()[:4] == [
        "data: no description",
        "rows: 34 to train, 6 trusted, the same to test",
        "inputs: (3) float32",
        "targets: (2) values, link identity",
    ]
