"""``metaloss predict``, from the command line."""

import csv
import json

import pytest

from metaloss.cli.main import main


def test_predictions_are_written_for_every_row(run, tmp_path, capsys):
    new, out = tmp_path / "new.csv", tmp_path / "out.csv"
    new.write_text("z;more;x\n1;a;0\n\n2;b;6,0\n0;c;1,0\n")
    assert main(["predict", str(run), str(new), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 3 rows\n"
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [(row["line"], row["class"]) for row in rows] == [("2", "no"), ("4", "yes"), ("5", "no")]
    for row in rows:
        assert float(row["p(no)"]) + float(row["p(yes)"]) == pytest.approx(1)


def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(run, tmp_path, capsys):
    new, out = tmp_path / "new.csv", tmp_path / "out.csv"

    def refused(*words):
        assert main(["predict", *map(str, words)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "No such file or directory" in refused(run, new, "--out", out)
    new.write_text("x\n1\n")
    assert "no column z; expected the columns that the run" in refused(run, new, "--out", out)
    assert "is not the folder of a run" in refused(tmp_path, new, "--out", out)
    assert not out.exists()
    out.write_text("mine")
    assert refused(run, new, "--out", out).endswith("exists already: choose another file")
    assert out.read_text() == "mine"


def test_a_run_that_diverged_must_be_forced(run, tmp_path, capsys):
    new, out = tmp_path / "new.csv", tmp_path / "out.csv"
    new.write_text("x,z\n1,1\n")
    summary = run / "summary.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "status": "diverged"}))
    assert main(["predict", str(run), str(new), "--out", str(out)]) == 2
    assert "the run has diverged" in capsys.readouterr().err
    assert main(["predict", str(run), str(new), "--out", str(out), "--force"]) == 0
    assert out.exists()
