"""A real offline run, read back from the file that it leaves."""

import base64
import hashlib
import json
import math
import os
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from metaloss.contracts import Logged, LossCurves, Noticed, RunFinished
from metaloss.tracking.wandb import Curves, WandB, WandBConfig

from . import wandb_reader
from .conftest import hide_keys, started
from .wandb_reader import BLOCK, read_run

CONFIG = {
    "task": {"name": "digits", "label_noise": 0.5},
    "loss": {"name": "mlp", "hidden": [40, 40], "seed": None},
    "tracker": {"wandb": {"mode": "auto"}},
    "steps": 30,
    "inner": {"name": "sgd", "lr": 0.1, "nesterov": True},
    # Longer than two blocks of the file, so that its records are cut into chunks.
    "note": "ℓ" * (BLOCK + 100),
}
LOGGED = [
    Logged(step=10, phase="offline", phase_step=10, numbers={"meta/task_loss": 2.25}),
    # The first evaluation of training falls on the last step before it.
    Logged(step=10, phase="train", phase_step=0, numbers={"valid/error": 0.9, "test/error": 0.8}),
    Logged(
        step=20,
        phase="train",
        phase_step=10,
        numbers={"train/loss": 0.1 + 0.2, "valid/error": 0.25, "valid/task_loss": 1.5},
    ),
    Logged(step=30, phase="train", phase_step=20, numbers={"train/loss": math.nan}),
    Logged(
        step=40,
        phase="train",
        phase_step=30,
        numbers={"train/loss": math.inf, "valid/error": 0.5, "test/error": 1e-12},
    ),
]
GRID = (0.0, 0.5, 1.0)
CURVES = {"t=0": (0.0, 0.5, 0.75), "t=1": (3.0, 0.5, 0.0)}
FLAT = {
    "task": "digits",
    "status": "ok",
    "final/test/error": 0.125,
    "best/test/error": 0.0625,
    "best/step": 20,
}
SUMMARY = {
    "task": "digits",
    "status": "ok",
    "seconds": 1.5,
    "train_seconds": None,
    "metrics": {"test/error": 0.125},
    "metrics_at_best_validation": {"test/error": 0.0625, "step": 20},
    "guard_events": [{"step": 20, "action": "restore"}],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Hide the tester's own keys, for runs that several tests look at."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        hide_keys(monkeypatch, tmp_path_factory.mktemp("world"))
        yield


def track(folder, finish=True, curves=Curves.image, **changes):
    """Track a small run; return what its file holds."""
    for name, content in (("loss.safetensors", b"phi" * 5), ("model.safetensors", b"theta")):
        (folder / name).write_bytes(content)
    (folder / "loss.json").write_text('{"family": "mlp"}')
    tracker = WandB(WandBConfig(tags=["b", "a"], curves=curves))
    tracker.handle(started(folder, **{"config": CONFIG, **changes}))
    tracker.handle(LossCurves(step=10, phase="offline", grid=GRID, curves=CURVES))
    for event in LOGGED:
        tracker.handle(event)
    tracker.handle(Noticed(step=40, message="η cut tenfold"))
    if finish:
        files = {
            "loss": folder / "loss.safetensors",
            "loss_description": folder / "loss.json",
            "model": folder / "model.safetensors",
        }
        tracker.handle(RunFinished(summary=SUMMARY, files=files))
    tracker.close()
    return read_run(folder)


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    return tmp_path_factory.mktemp("digits-online")


@pytest.fixture(scope="module")
def recorded(folder):
    return track(folder)


def test_the_run_has_its_name_group_tags_and_project(recorded):
    run = recorded.run
    assert (run.display_name, run.run_group, run.project) == ("digits-online",) * 2 + ("metaloss",)
    assert sorted(run.tags) == ["a", "b", "digits", "mlp"]
    assert run.job_type == "mlp"


def test_the_whole_config_is_there(recorded):
    assert {name: recorded.config[name] for name in CONFIG} == CONFIG
    assert max(recorded.sizes) > 2 * BLOCK


def test_every_number_is_at_its_step(recorded):
    expected = {}
    for event in LOGGED:
        numbers = expected.setdefault(event.step, {})
        named = {
            name if event.phase == "train" else f"{event.phase}/{name}": value
            for name, value in event.numbers.items()
        }
        numbers |= {**named, f"step/{event.phase}": event.phase_step}
    found = {
        step: {k: v for k, v in numbers.items() if k[0] != "_" and "curves" not in k}
        for step, numbers in recorded.history
    }
    assert found.keys() == expected.keys()
    for step, numbers in expected.items():
        assert {k: repr(_number(v)) for k, v in found[step].items()} == {
            k: repr(_number(v)) for k, v in numbers.items()
        }


def _number(value):
    """Read a number as wandb writes it: what JSON has no literal for is a word."""
    return float(value)


def test_steps_only_grow_and_each_is_written_once(recorded):
    steps = [step for step, _ in recorded.history]
    assert steps == sorted(set(steps)) == [10, 20, 30, 40]


def test_the_summary_keeps_the_best_of_validation_alone(recorded):
    best = {name: how for name, how in recorded.metrics.items() if how}
    assert best == {"valid/error": ["min"], "valid/task_loss": ["min"]}


def test_every_number_has_an_axis(recorded):
    axes = recorded.axes
    assert axes["train/loss"] == axes["valid/error"] == axes["test/error"] == "step/train"
    assert axes["offline/meta/task_loss"] == "step/offline"


def test_the_logs_are_kept(recorded):
    assert "train 10: train/loss 0.3000  valid/error 0.2500" in recorded.logs
    assert "warning: step 40: η cut tenfold" in recorded.logs


def test_the_summary_is_that_of_the_run(recorded):
    assert {name: recorded.summary[name] for name in FLAT} == FLAT
    assert "metrics" not in recorded.summary
    assert recorded.summary["notices"] == ["step 40: η cut tenfold"]
    assert recorded.exit_code == 0


def test_the_learned_loss_is_an_artifact(recorded, folder):
    (artifact,) = [found for found in recorded.artifacts if found.type == "loss"]
    assert artifact.name == "digits-online-loss"
    assert artifact.finalize
    assert json.loads(artifact.metadata)["metrics"] == SUMMARY["metrics"]
    entries = {entry.path: entry for entry in artifact.manifest.contents}
    assert sorted(entries) == ["loss.json", "loss.safetensors"]
    assert json.loads(artifact.metadata)["config"]["inner"] == CONFIG["inner"]
    for name, entry in entries.items():
        content = (folder / name).read_bytes()
        assert entry.size == len(content)
        assert base64.b64decode(entry.digest) == hashlib.md5(content).digest()


def test_the_artifact_outlives_the_files_of_the_folder(recorded, folder):
    (artifact,) = [found for found in recorded.artifacts if found.type == "loss"]
    (entry,) = [e for e in artifact.manifest.contents if e.path == "loss.safetensors"]
    # A resumed run writes these anew: the copy lies beside wandb's own files.
    copy = folder / entry.local_path
    assert copy != folder / "loss.safetensors"
    assert folder / "wandb" in copy.parents
    assert copy.read_bytes() == b"phi" * 5


def test_the_curves_are_a_picture(recorded, folder):
    (picture,) = [numbers["offline/loss/curves"] for _, numbers in recorded.history[:1]]
    assert picture["_type"] == "image-file"
    (png,) = folder.glob(f"wandb/*run-*/files/{picture['path']}")
    content = png.read_bytes()
    assert hashlib.sha256(content).hexdigest() == picture["sha256"]
    assert struct.unpack(">II", content[16:24]) == (picture["width"], picture["height"])
    assert picture["width"] > picture["height"] > 200


def test_a_resumed_run_is_a_new_one_in_the_group_whose_step_goes_on(recorded, folder, tmp_path):
    again = track(tmp_path, finish=False, curves=Curves.table, resumed_from=5)
    assert again.run.run_id != recorded.run.run_id
    assert again.run.run_group == recorded.run.run_group
    assert "resumed" in again.run.tags
    assert again.config["resumed_from"] == 5
    assert again.history[0][0] == 10
    # There was no last event, and no exception that tells why.
    assert again.exit_code == 1
    # The curves as a table.
    table = again.history[0][1]["offline/loss/curves"]
    assert table["_type"] == "table-file"
    (file,) = tmp_path.glob(f"wandb/*run-*/files/{table['path']}")
    rows = json.loads(file.read_text())
    assert rows["columns"] == ["prediction", "t=0", "t=1"]
    assert rows["data"][:2] == [[0.0, 0.0, 3.0], [0.5, 0.5, 0.5]]


def children():
    """Return the names of this process's children; other tests may have left some of theirs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, fields = path.read_text().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue  # it ended while we looked
        if int(fields.split()[1]) == os.getpid():
            found.append(name)
    return found


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="child processes are read in /proc"
)
def test_the_service_process_ends_with_the_run(recorded):
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        assert "sleep" in children(), "a child would be seen"
    finally:
        sleeper.kill()
        sleeper.wait()
    assert not [name for name in children() if name.startswith("wandb")]


def test_the_reader_refuses_damaged_files(recorded, folder):
    (path,) = folder.glob("wandb/*run-*/*.wandb")
    data = path.read_bytes()
    assert len(list(wandb_reader.read_payloads(data))) == len(recorded.sizes)
    for place in (20, len(data) // 2, len(data) - 1):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(ValueError, match=r"check sum|ends within|wrong place"):
            list(wandb_reader.read_payloads(bytes(damaged)))
    with pytest.raises(ValueError, match=r"no \.wandb file"):
        list(wandb_reader.read_payloads(b"PK\x03\x04" + data))


def test_the_reader_puts_records_together_that_cross_blocks():
    first = bytes(range(256)) * 100  # 25,600 bytes, then one that needs three blocks
    second = os.urandom(2 * BLOCK)
    data, at = b":W&B\xe1\xbe\x00", 7
    for record in (first, second, b"", b"end"):
        rest, begun = record, False
        while True:
            room = BLOCK - at % BLOCK
            if room < 7:
                data, at = data + bytes(room), at + room
                continue
            piece, rest = rest[: room - 7], rest[room - 7 :]
            kind = {(0, 0): 1, (0, 1): 2, (1, 1): 3, (1, 0): 4}[begun, bool(rest)]
            crc = zlib.crc32(bytes([kind]) + piece)
            data += struct.pack("<IHB", crc, len(piece), kind) + piece
            at, begun = len(data), True
            if not rest:
                break
    assert list(wandb_reader.read_payloads(data)) == [first, second, b"", b"end"]
