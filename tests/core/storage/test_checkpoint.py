import hashlib
import io
import pickle
import shutil

import pytest
import torch

from metaloss.core.storage import checkpoint
from metaloss.core.storage.checkpoint import load_newest, save
from metaloss.errors import MetalossError

CPU = torch.device("cpu")
CONTENT = {
    "numbers": [torch.arange(5.0), torch.tensor(float("nan")), torch.ones((), dtype=torch.int64)],
    "text": "é",
    "nested": {"a": [1, 2.5, None, True]},
}


def _write(folder, steps):
    for step in steps:
        save(folder, step, {**CONTENT, "step": step})


def test_a_checkpoint_comes_back_bit_by_bit(tmp_path):
    path = save(tmp_path, 7, CONTENT)
    content, messages = load_newest(tmp_path, CPU)
    assert path.name == "000000000007.checkpoint"
    assert messages == []
    assert content.pop("version") == checkpoint.VERSION
    assert (content["text"], content["nested"]) == (CONTENT["text"], CONTENT["nested"])
    for found, expected in zip(content["numbers"], CONTENT["numbers"], strict=True):
        assert found.dtype == expected.dtype
        assert torch.equal(found.nan_to_num(9.0), expected.nan_to_num(9.0))


def test_the_two_newest_are_kept_and_the_newest_is_loaded(tmp_path):
    _write(tmp_path, [5, 9, 20, 100])
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "000000000020.checkpoint",
        "000000000100.checkpoint",
    ]
    assert load_newest(tmp_path, CPU)[0]["step"] == 100


def test_a_run_that_was_taken_up_earlier_keeps_its_own_checkpoints(tmp_path):
    """Later ones, of before, are damaged; they must not push out what the run writes now."""
    _write(tmp_path, [80, 100])
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    (tmp_path / "mine.pt").write_bytes(b"a file of the user's")
    for step in (1, 5, 9):
        _write(tmp_path, [step])
        content, messages = load_newest(tmp_path, CPU)
        assert (content["step"], messages) == (step, [])
    names = ["000000000005.checkpoint", "000000000009.checkpoint", "mine.pt"]
    assert [path.name for path in sorted(tmp_path.iterdir())] == names


def test_an_empty_folder_holds_no_checkpoint(tmp_path):
    assert load_newest(tmp_path, CPU) == (None, [])
    assert load_newest(tmp_path / "missing", CPU) == (None, [])


def _flip(data):
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGE = {
    "one bit": (_flip, "checksum"),
    "cut in half": (lambda data: data[: len(data) // 2], "checksum"),
    "cut in the head": (lambda data: data[:30], "checksum"),
    "empty": (lambda data: b"", "not a checkpoint"),
    "another file": (lambda data: b"hello" * 100, "not a checkpoint"),
    "longer": (lambda data: data + b"\0", "checksum"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_newest_one_falls_back_to_the_one_before_and_says_so(tmp_path, kind):
    _write(tmp_path, [1, 2])
    damage, reason = DAMAGE[kind]
    newest = tmp_path / "000000000002.checkpoint"
    newest.write_bytes(damage(newest.read_bytes()))
    content, messages = load_newest(tmp_path, CPU)
    assert content["step"] == 1
    (message,) = messages
    assert "000000000002.checkpoint is damaged" in message
    assert reason in message
    assert message.endswith("using the one before")


def test_without_a_whole_one_the_run_starts_over_and_says_so(tmp_path):
    _write(tmp_path, [1, 2])
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    content, messages = load_newest(tmp_path, CPU)
    assert content is None
    assert [message.split(": ")[-1] for message in messages] == [
        "using the one before",
        "starting over",
    ]


def _signed(payload):
    return checkpoint._MAGIC + hashlib.sha256(payload).digest() + payload


def test_a_pickle_that_would_run_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (
                shutil.copyfile,
                (str(tmp_path / "000000000001.checkpoint"), str(tmp_path / "sprung")),
            )

    _write(tmp_path, [1])
    packed = io.BytesIO()
    torch.save({"version": 1, "trap": Trap()}, packed)
    for step, payload in ((2, packed.getvalue()), (3, pickle.dumps(Trap(), protocol=2))):
        (tmp_path / f"{step:012d}.checkpoint").write_bytes(_signed(payload))
    content, messages = load_newest(tmp_path, CPU)
    assert content["step"] == 1
    assert len(messages) == 2
    assert not (tmp_path / "sprung").exists()


def test_a_newer_format_is_refused_by_its_number(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "VERSION", checkpoint.VERSION + 1)
    _write(tmp_path, [1])
    monkeypatch.undo()
    with pytest.raises(MetalossError, match=r"has format version \d; this metaloss reads"):
        load_newest(tmp_path, CPU)


def test_a_crash_while_writing_leaves_the_older_ones(tmp_path, monkeypatch):
    _write(tmp_path, [1, 2])

    def cut(path, content):
        raise OSError("power cut")

    monkeypatch.setattr(checkpoint, "write_atomically", cut)
    with pytest.raises(OSError, match="power cut"):
        save(tmp_path, 3, CONTENT)
    assert load_newest(tmp_path, CPU)[0]["step"] == 2


def test_checkpoints_of_older_versions_are_read_and_dropped(tmp_path):
    save(tmp_path, 1, {"step": 1})
    (tmp_path / "000000000001.checkpoint").rename(tmp_path / "000000000001.pt")
    assert load_newest(tmp_path, torch.device("cpu"))[0]["step"] == 1
    save(tmp_path, 2, {"step": 2})
    assert load_newest(tmp_path, torch.device("cpu"))[0]["step"] == 2
    save(tmp_path, 3, {"step": 3})
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "000000000002.checkpoint",
        "000000000003.checkpoint",
    ]
