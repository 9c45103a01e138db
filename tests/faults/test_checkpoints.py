"""Checkpoints that are damaged or cut anywhere: another one is used, or a new start; it is said."""

import pytest
import torch

import metaloss
from metaloss.core.runs.run import resume_run
from metaloss.core.storage.checkpoint import load_newest

from .killing import SMALL, endings

CPU = torch.device("cpu")
WORDS = (
    *(*SMALL, "tracker=[]", "loss.hidden=[6]", "start.steps=20", "steps=12", "schedule=online"),
    # The guard's patience is a share of the steps, and these are made more.
    *("log_every=2", "eval_every=4", "checkpoint_every=3", "guard=off"),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    metaloss.train([*WORDS, f"output={folder}"])
    return folder


@pytest.fixture
def longer(whole, tmp_path):
    """Return a run that may go on, and what it must end like."""
    metaloss.train([*WORDS, f"output={tmp_path / 'longer'}", "steps=18"])
    metaloss.train([*WORDS, f"output={tmp_path / 'run'}"])
    return tmp_path / "run", endings(tmp_path / "longer")


def regions(size):
    """Return places in the header, the digest, the archive's head, the tensors and the end."""
    return {
        "magic": (0, 19),
        "digest": (20, 51),
        "head": (52, 52 + 512),
        "tensors": (size // 3, 2 * size // 3),
        "directory": (size - 600, size - 1),
    }


def damage(path, place, kind):
    data = path.read_bytes()
    if kind == "bit":
        data = data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
    elif kind == "cut":
        data = data[:place]
    else:
        data = data[:place] + bytes(len(data) - place)
    path.write_bytes(data)


def assert_falls_back(folder, path, place, kind):
    before = path.read_bytes()
    damage(path, place, kind)
    assert path.read_bytes() != before
    content, messages = load_newest(folder, CPU)
    assert int(content["progress"][1]) < 12
    (message,) = messages
    assert f"checkpoint {path.name} is damaged" in message
    path.write_bytes(before)


@pytest.mark.parametrize("kind", ["bit", "cut", "zeros"])
def test_every_region_is_guarded(whole, kind):
    folder = whole / "checkpoints"
    path = max(folder.iterdir())
    for first, last in regions(path.stat().st_size).values():
        for place in {first, (first + last) // 2, last}:
            if kind != "zeros" or any(path.read_bytes()[place:]):
                assert_falls_back(folder, path, place, kind)
    assert load_newest(folder, CPU)[1] == []


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["bit", "cut", "zeros"])
def test_every_byte_is_guarded(whole, kind):
    folder = whole / "checkpoints"
    path = max(folder.iterdir())
    size = path.stat().st_size
    places = {*range(700), *range(700, size, max(1, size // 2000)), *range(size - 300, size)}
    for place in sorted(places):
        if kind != "zeros" or any(path.read_bytes()[place:]):
            assert_falls_back(folder, path, place, kind)


@pytest.mark.parametrize("count", [1, 2])
def test_a_damaged_checkpoint_is_said_in_the_journal_and_the_summary(longer, count):
    folder, expected = longer
    newest = sorted((folder / "checkpoints").iterdir())[-count:]
    for path in newest:
        damage(path, path.stat().st_size // 2, "bit")
    run = resume_run(folder, steps=18)
    said = [row["warning"] for row in run.journal() if "warning" in row]
    assert said == run.summary.warnings
    assert len(said) == count
    assert "is damaged" in said[-1]
    assert said[-1].endswith("using the one before" if count == 1 else "starting over")
    found = endings(folder)
    (place,) = {place for place, _ in found}
    found[place, "journal.jsonl"] = [
        row for row in found[place, "journal.jsonl"] if "warning" not in row
    ]
    found[place, "summary"][-1] = []
    assert found == expected
