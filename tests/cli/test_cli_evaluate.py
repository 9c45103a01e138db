"""``metaloss evaluate``, from the command line."""

import json

import numpy as np
from PIL import Image

import metaloss
from metaloss.cli.main import main

WORDS = ["schedule=static", "loss=cross_entropy", "tracker=[]", "compile=off", "model.hidden=[8]"]


def test_metrics_and_the_matrix_are_printed_and_written(run, tmp_path, capsys):
    new, out = tmp_path / "new.csv", tmp_path / "metrics.json"
    new.write_text("x,z,y\n0,1,no\n6,1,yes\n5,0,yes\n6,2,no\n")
    words = ["evaluate", run, new, "--metrics", "f1_macro,accuracy", "--out", out]
    assert main([*map(str, words)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{new}: 4 rows",
        "error     0.25",
        "f1_macro  0.7333",
        "accuracy  0.75",
        "true \\ predicted  no  yes",
        "no                 1    1",
        "yes                0    2",
    ]
    content = json.loads(out.read_text())
    assert content["confusion"] == [[1, 1], [0, 2]]
    assert content["classes"] == ["no", "yes"]
    assert content["metrics"]["accuracy"] == 0.75


def test_without_rows_the_run_s_test_rows_are_evaluated(run, capsys):
    assert main(["evaluate", str(run), "--best"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "test rows of the run: 15 rows"
    assert any(line.startswith("balanced_accuracy") for line in lines)


def test_what_is_wrong_is_said_in_one_line(run, tmp_path, capsys):
    for words, expected in (
        ([run, "--metrics", "f1_makro"], "did you mean 'f1_macro'"),
        ([run, tmp_path / "no.csv"], "No such file"),
        ([tmp_path], "is not the folder of a run"),
        ([run, "--out", run / "config.yaml"], "exists already"),
    ):
        assert main(["evaluate", *map(str, words)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert expected in line


def test_a_folder_of_pictures_gives_the_run_s_own_numbers(tmp_path, capsys):
    draw = np.random.default_rng(0)
    for part, count in (("train", 15), ("test", 6)):
        for name, level in (("dark", 60), ("light", 160)):
            (tmp_path / part / name).mkdir(parents=True)
            for place in range(count):
                pixels = draw.integers(0, 90, (12, 12)) + level
                Image.fromarray(pixels.astype(np.uint8)).save(
                    tmp_path / part / name / f"{place}.png"
                )
    words = ["task=images", f"task.path={tmp_path / 'train'}", f"task.test={tmp_path / 'test'}"]
    words += ["task.size=8", "steps=3", "task.metrics=[log_loss]", f"output={tmp_path / 'run'}"]
    run = metaloss.train([*WORDS, *words])
    out = tmp_path / "m.json"
    assert main(["evaluate", *map(str, (run.folder, tmp_path / "test", "--out", out))]) == 0
    assert "light" in capsys.readouterr().out
    own = run.summary.metrics
    expected = {"error": own["test/error"], "log_loss": own["test/log_loss"]}
    assert json.loads(out.read_text())["metrics"] == expected
