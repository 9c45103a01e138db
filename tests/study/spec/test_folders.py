import json

import numpy as np
import pytest

from metaloss.core.storage.run_folder import _NAMED, last_row, read_run
from metaloss.errors import MetalossError

WORDS = ("task=digits", "schedule=online", "loss=mlp", "tracker=[]", "steps=400")


@pytest.fixture
def folder(tmp_path, runs):
    runs.write_run(tmp_path / "run", WORDS)
    return tmp_path / "run"


def test_a_whole_run_is_read_without_a_note(folder):
    run = read_run(folder)
    assert run.notes == ()
    assert run.config["schedule"]["name"] == "online"
    steps, values = run.series("test/error", phase="train")
    assert steps.tolist() == [0, 100, 200, 300, 400]
    assert np.isfinite(values).all()
    assert run.series("test/error")[0].tolist() == [2000, 2100, 2200, 2300, 2400]
    assert run.phase_start("train") == 2000
    assert len(run.curves) == 5


def test_a_cut_last_line_is_left_out_with_a_note(folder):
    path = folder / "journal.jsonl"
    whole = read_run(folder)
    path.write_bytes(path.read_bytes()[:-30])
    run = read_run(folder)
    assert run.journal == whole.journal[:-1]
    assert any("the last line is incomplete or damaged" in note for note in run.notes)


def test_damage_in_the_middle_costs_one_line(folder):
    path = folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = b"\x00\xff not json\n"
    lines[5] = b'{"step": "five", "phase": "train", "phase_step": 1}\n'
    path.write_bytes(b"".join(lines))
    run = read_run(folder)
    assert len(run.journal) == len(lines) - 2
    assert [note.rsplit(":", 1)[1] for note in run.notes] == [
        " line 4 is incomplete or damaged; skipped",
        " line 6 is incomplete or damaged; skipped",
    ]


def test_what_a_kill_left_behind_gives_way_to_what_was_written_again(folder):
    path = folder / "journal.jsonl"
    again = {"step": 2200, "phase": "train", "phase_step": 200, "test/error": 0.123}
    with path.open("a") as file:
        file.write(json.dumps(again) + "\n")
    steps, values = read_run(folder).series("test/error", phase="train")
    assert steps.tolist() == [0, 100, 200]
    assert values[-1] == 0.123


def test_rows_of_one_step_in_two_phases_are_both_kept(folder):
    rows = read_run(folder).journal
    assert [(row.step, row.phase) for row in rows if row.step == 2000] == [
        (2000, "start"),
        (2000, "train"),
    ]


def test_null_is_not_a_number_but_keeps_its_step(folder):
    with (folder / "journal.jsonl").open("a") as file:
        row = {"step": 9000, "phase": "train", "phase_step": 7000, "train/loss": None}
        file.write(json.dumps(row) + "\n")
    steps, values = read_run(folder).series("train/loss", phase="train")
    assert steps[-1] == 7000
    assert np.isnan(values[-1])


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"metrics": 3}', *(f'{{"metrics": {{}}, "{name}": [1]}}' for name in _NAMED)],
)
def test_a_damaged_summary_makes_an_unfinished_run(folder, content):
    (folder / "summary.json").write_text(content)
    run = read_run(folder)
    assert run.summary is None
    assert any("summary.json is damaged" in note for note in run.notes)


def test_curves_whose_lengths_differ_are_skipped(folder):
    with (folder / "curves.jsonl").open("a") as file:
        row = {"step": 9000, "phase": "train", "grid": [0, 1], "curves": {"t=0": [1, 2, 3]}}
        file.write(json.dumps(row) + "\n")
    run = read_run(folder)
    assert len(run.curves) == 5
    assert any("curves.jsonl" in note for note in run.notes)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(MetalossError, match=r"is not the folder of a run"):
        read_run(tmp_path)
    (tmp_path / "passes.yaml").touch()
    with pytest.raises(MetalossError, match=r"in the first of two passes, which is in .*first; to"):
        read_run(tmp_path)
    (tmp_path / "seed3").mkdir()
    (tmp_path / "seed3" / "config.yaml").touch()
    with pytest.raises(MetalossError, match=r"holds several runs: give one of .*seed3"):
        read_run(tmp_path)


def test_last_row_of_a_journal_that_is_being_written(folder):
    whole = read_run(folder).journal
    assert last_row(folder) == whole[-1]
    with (folder / "journal.jsonl").open("a") as file:
        file.write('{"step": 99')
    assert last_row(folder) == whole[-1]
    assert last_row(folder / "nowhere") is None
