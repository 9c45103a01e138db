import errno
import fcntl
import json
import os
from pathlib import Path

import pytest

from metaloss.core.storage.files import read_json, write_atomically, write_json
from metaloss.core.storage.journal import Journal
from metaloss.core.storage.run_folder import JOURNAL, MADE_OF, SUMMARY, read_rows, read_run
from metaloss.errors import MetalossError


class PowerCut(Exception):
    pass


def _cut(*_, **__):
    raise PowerCut


def test_a_file_is_written_whole_with_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("owner", "function"), [(os, "fsync"), (os, "replace"), (Path, "replace"), (Path, "open")]
)
def test_a_crash_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch, owner, function):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(owner, function, _cut)
    if (owner, function) == (os, "replace"):
        # Path.replace is what is called; it may or may not go through os.replace.
        monkeypatch.setattr(Path, "replace", _cut)
    with pytest.raises(PowerCut):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_content_is_on_the_disk_before_the_name_points_to_it(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (calls.append("fsync"), fsync(number))[1])
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (calls.append("rename"), replace(self, to))[1]
    )
    write_atomically(tmp_path / "file", b"content")
    assert calls == ["fsync", "rename", "fsync"]


def test_json_has_no_word_for_nan(tmp_path):
    value = {"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": -float("inf")}, "é": "é"}
    write_json(tmp_path / "file", value)
    text = (tmp_path / "file").read_text(encoding="utf-8")
    assert "é" in text
    assert json.loads(text, parse_constant=_cut) == {
        "a": None,
        "b": [None, 1.5],
        "c": {"d": None},
        "é": "é",
    }


# ---------------------------------------------------------------------------------- the journal


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def test_every_row_can_be_read_at_once(path):
    journal = Journal(path)
    for step in range(3):
        journal.write({"step": step, "train/loss": 0.1 * step})
        assert [row["step"] for row in read_rows(path)] == list(range(step + 1))
    journal.close()


def test_numbers_come_back_bit_by_bit(path):
    journal = Journal(path)
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2**60]
    journal.write(dict(zip("abcdef", values, strict=True)))
    assert list(read_rows(path)[0].values()) == values
    journal.close()


def test_what_is_not_finite_is_written_as_null(path):
    journal = Journal(path)
    journal.write({"step": 1, "a": float("nan"), "b": float("inf"), "c": -float("inf")})
    assert read_rows(path) == [{"step": 1, "a": None, "b": None, "c": None}]
    journal.close()


def test_the_journal_is_cut_back_to_a_position_and_goes_on(path):
    journal = Journal(path)
    journal.write({"step": 1})
    keep = journal.position()
    journal.write({"step": 2})
    journal.close()
    journal = Journal(path, keep=keep)
    assert journal.position() == keep
    journal.write({"step": 3})
    assert journal.position() == path.stat().st_size
    journal.close()
    assert [row["step"] for row in read_rows(path)] == [1, 3]


def test_a_journal_without_a_limit_goes_on_at_its_end(path):
    for step in (1, 2):
        journal = Journal(path)
        journal.write({"step": step})
        journal.close()
    assert [row["step"] for row in read_rows(path)] == [1, 2]


def test_a_last_line_that_a_kill_cut_off_is_left_out(path):
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"ste')
    assert [row["step"] for row in read_rows(path)] == [1, 2]


def test_a_journal_shorter_than_its_checkpoint_is_refused_and_left_alone(path):
    path.write_bytes(b'{"step": 1}\n')
    with pytest.raises(MetalossError, match="has 12 bytes, its checkpoint was written after 40"):
        Journal(path, keep=40)
    assert path.read_bytes() == b'{"step": 1}\n'


def test_a_journal_that_cannot_be_opened_is_told(tmp_path):
    with pytest.raises(MetalossError, match=r"cannot write the journal .*: No such file"):
        Journal(tmp_path / "missing" / "journal.jsonl")
    with pytest.raises(MetalossError, match=r"cannot write the journal .*: Is a directory"):
        Journal(tmp_path)


def test_a_file_system_without_locks_has_journals_too(path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    journal = Journal(path)
    journal.write({"step": 1})
    journal.close()
    assert read_rows(path) == [{"step": 1}]


def test_a_full_disk_stops_the_run():
    journal = Journal(Path("/dev/full"))
    with pytest.raises(MetalossError, match=r"cannot write the journal /dev/full: .*No space left"):
        journal.write({"step": 1})
    # What could not be written is still in its buffer: closing must not fail for it again.
    journal.close()


def test_a_value_that_is_no_json_is_told(path):
    journal = Journal(path)
    with pytest.raises(TypeError):
        journal.write({"step": object()})
    journal.close()


def test_json_nested_too_deeply_is_damaged_and_what_is_no_object_is_none(tmp_path):
    deep = "[" * 5000
    for name in (SUMMARY, JOURNAL, MADE_OF):
        (tmp_path / name).write_text(f"{deep}\n")
    run = read_run(tmp_path)
    assert (run.summary, run.journal, read_json(tmp_path / MADE_OF)) == (None, (), {})
    assert f"{SUMMARY} is damaged (nested too deeply)" in " ".join(run.notes)
    (tmp_path / MADE_OF).write_text("[1]")
    assert read_json(tmp_path / MADE_OF) == {}
